"""Tenants that take whatever they may, for `bench greed`: each as much of one thing as it can.

| file | what it has |
|---|---|
| `tenant.py` | what a greedy tenant is, and what it has at hand |
| `sending.py` | those that take the worker's places, memory, threads and time |
| `asking.py` | those that take the site's threads, memory, transactions and time |
| `roll.py` | all of them by name |
| `clients.py` | clients that ask the same thing again and again, in a process of their own |
| `receivers.py` | receivers that answer too much, too slowly or with an error, likewise |
| `grounds.py` | the rows that a run starts with |

To add one, write a class with a `name`, and give it a line in `roll.py`:

    class Places(Greedy):
        name = "places"

        def prepare(self) -> None:
            self.reach.endpoints(5, …)

Nothing is set in its favour: it makes its endpoints and posts its events by the API, as anybody
with a key does, and stops at the first refusal. Its largest values are read from what the API
declares (`largest`), so that a bound that is lowered is the bound that is tried.
"""
