"""What stands between the server and the site.

It takes requests in, and lets nobody hold more than a stranger may.

The server (granian) reads heads and hands each request over on one event loop. Here nothing waits
on a thread: a client that sends half of a body costs a few kilobytes and a place of its own
address, and none of the threads that work.

| file | what it decides |
|---|---|
| `heads.py` | what a request says: its header lines, before names that look alike become one |
| `caps.py` | how long a body may be, and what has to be shown for a longer one |
| `reading.py` | how many bodies may be under way, for how long, and how much memory they share |
| `connections.py` | how many connections one address may keep |
| `threads.py` | which threads do the work |
| `application.py` | a request from end to end |
"""
