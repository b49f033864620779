"""How many of everything there is in a web process.

Each number is shared out as `delivery/shares.py` says: half to one who is alone, and always
something for whoever comes next. docs/resources.md lists who may take how much.
"""

# Threads that work, each with a connection to the database. One tenant has three of them, which is
# more than two processors can keep busy; two tenants have two each, and two are free.
SITE_THREADS = 6
# Calls at those threads, and those that wait for one; for a turn no longer than this.
CALLS = 224
TURN_WITHIN_S = 20.0
# `/health/ready` and `/metrics`, on threads apart from everybody's pages.
VITAL_THREADS, VITAL_CALLS = 2, 16
# Threads that do nothing but wait until posted events are stored, and posts at them or waiting.
POSTERS, POSTS = 56, 224
# Plain posts that wait for the same on no thread at all.
PLAIN_POSTS = 1000
