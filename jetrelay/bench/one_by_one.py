"""The site as it would be without group commit, for `ingest`: each post has a transaction of its own. Served like `jetrelay.rsgi`."""

# The site first: it sets Django up.
from jetrelay.rsgi import front  # isort: skip
from delivery import ingest  # isort: skip

# Transactions of their own go best on few threads: more would wait for each other.
FEW_THREADS = 5

ingest.publisher = ingest.OneByOne()
application = front(FEW_THREADS)

__all__ = ["application"]
