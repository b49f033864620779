"""A Jetstream server for trials, tests and benchmarks: it plays a log of events over the real protocol.

Follow an event from the file to the socket: log.py (events by position) -> stretch.py (frames ready to send) ->
playhead.py (how far clients may read) -> server.py (one connection), which asks options.py what its client wants.
Nothing here knows Django; `manage.py play_jetstream` is the way in.
"""
