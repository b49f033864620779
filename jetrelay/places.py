"""How many may be under way in a web process, by what they wait for. Each number is shared out as `shares.py` says: half to one who is alone.

The server's threads do next to nothing but wait, and one that was never needed was never made (64 KB each otherwise). There are more of them than
all that is counted here, so that a request that is refused, and `/health`, always find one at once.
"""

# Threads that work, each with a connection to the database. One tenant has five of them, which is as many as two processors can keep busy;
# two tenants have three each, and there is one left for whoever comes next.
SITE_THREADS = 10
# Calls of pages and of the API at those threads, and those that wait for one: for a turn no longer than this.
CALLS = 224
TURN_WITHIN_S = 20.0
# Calls of `/health/ready` and of `/metrics`, each on two threads of its own.
VITAL_THREADS = 2
VITAL_CALLS = 8
# Posts that wait for the transaction in which their events are stored. Half is more than clients of one tenant need to fill a transaction.
POSTS = 160
# Bodies that are being read.
BODIES = 64
# Answers that are read from a file as fast as their client takes them, and larger than this.
STREAMS = 32
STREAMED_FROM_BYTES = 256 * 1024

# The server's threads, as `manage.py up`, the README and docker-compose.yml start it.
SERVER_THREADS = 512

# Bytes of all bodies that were taken in and are not answered yet.
BODY_BYTES = 128 * 1024 * 1024
