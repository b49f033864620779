"""The crash ledger: the whole system as real processes, one fault after the other, and an account of every event.

    python -m tests.crash [--seed N] [--random N] [--json]        (make crash-test ARGS=…)

house.py      what runs: a player, two listeners, two workers, beat; PostgreSQL and Redis of its own; receivers
faults.py     what happens to it
books.py      what became of every event, from the stream's file, the tables and the receivers
"""
