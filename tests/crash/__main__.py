"""`python -m tests.crash`: the long form, by hand. Ends with 1 when anything is lost or does not add up."""

import argparse
import json
import os
import random
import signal
import sys
from time import strftime

import django


def main() -> int:
    import tests.environment  # noqa: F401 - Django reads its settings from what this sets

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    django.setup()
    from tests.crash.faults import FAULTS, SHORT
    from tests.crash.report import text
    from tests.crash.run import Plan, choose, folder_of_a_run, run
    from tests.crash.servers import Unavailable

    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Faults, and what became of every event.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="what chance goes by (default: another one each time)")
    parser.add_argument("--faults", help=f"which, comma-separated, of: {', '.join(FAULTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help="those of the short form, which runs with the tests, and none that overlap")
    parser.add_argument("--random", type=int, default=24, metavar="N", help="so many more at random moments, overlapping (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=150.0, help="events a second (default: %(default)g)")
    parser.add_argument("--wire", choices=("v1", "v2"), default="v1", help="which the stream comes on (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of the table")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs, the stream and the database")
    options = parser.parse_args()
    names = SHORT if options.short else tuple(FAULTS)
    if options.faults is not None:
        names = tuple(name.strip() for name in options.faults.split(",") if name.strip())
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        parser.error(f"no fault is called {', '.join(unknown)}; choose of: {', '.join(FAULTS)}")

    def say(words: str) -> None:
        print(f"{strftime('%H:%M:%S')}  {words}", file=sys.stderr, flush=True)

    # Whoever ends this ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    overlapping = choose(list(FAULTS.values()), 0 if options.short else options.random, options.seed)
    plan = Plan(options.seed, [FAULTS[name] for name in names], overlapping, rate=options.rate, wire=options.wire)
    say(f"seed {plan.seed} (--seed {plan.seed} chooses the same moments again)")
    try:
        with folder_of_a_run(options.keep) as folder:
            if options.keep:
                say(f"logs and data stay in {folder}")
            books = run(plan, folder, say)
    except Unavailable as missing:
        print(f"The crash test wants {missing}.", file=sys.stderr)
        return 2
    print(json.dumps({"name": "crash", "seed": plan.seed} | books.document(), indent=2) if options.json else text(books))
    return 1 if books.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
