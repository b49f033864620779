"""`/metrics`: the state of the installation, for Prometheus. `docs/metrics.md` lists every series.

Everything is read from the tables when it is asked for. No process counts anything for itself, so the answer is the same whichever
of the web processes gives it, and the same after a restart.
"""
