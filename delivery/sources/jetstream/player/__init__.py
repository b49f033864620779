"""A Jetstream for trials, tests and benchmarks: it plays a log of events over both wires, and misbehaves on request.

Follow an event from the file to the socket:

    log.py, live.py   events by position, from files or appended by a test
    stretch.py        a run of them as frames ready to send, with the facts that filters ask about
    wires.py          an event on v1 and on v2, each made from the other
    edition.py        the log as one host serves it on one wire: its clock, its numbers, compressed or not
    playhead.py       how far clients may read
    host.py           where a cursor lies on this host, and what a connection is let in with
    listener.py       one connection; conduct.py does to its events what misbehaviour.py says

and a request from the socket to the log: connection.py, handshake.py, then options.py (v1) or subscription.py (v2).
server.py holds it together, command_line.py reads the options of many hosts. Nothing here knows Django;
`manage.py play_jetstream` is the way in, and docs/play_jetstream.md tells how to use it.
"""
