"""The site as it would be without group commit, for `ingest`: each post has a transaction of its own. Served by granian, like `jetrelay.wsgi`."""

# The site first: it sets Django up.
from jetrelay.wsgi import application  # isort: skip
from delivery import ingest  # isort: skip

ingest.publisher = ingest.OneByOne()

__all__ = ["application"]
