"""Benchmarks: each starts what it needs, measures, and leaves nothing behind. `manage.py bench NAME`."""
