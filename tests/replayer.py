"""A worker that carries replays out, and says when a step is done. Started as a process by tests, which kill it."""

import os
from time import sleep

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    django.setup()

    from delivery.replay.running import run

    def rest(seconds: float) -> bool:
        print("a step is done", flush=True)
        # Long enough to be killed at any moment of it, or of the next step.
        sleep(0.1)
        return False

    run(rest, budget_s=60)
