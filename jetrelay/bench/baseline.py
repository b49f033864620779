"""Baseline (a) of `drain` and `pipeline`: workers of `per_task`, started and compared in one way. Baseline (b) is `limit`."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from jetrelay.bench.interface import Figures
from jetrelay.bench.processes import python, running, wait_for_line

# The pools that are tried; the better one counts. More than the cores, as its work is half waiting.
POOLS = {"prefork": ["-P", "prefork", "-c", "8"], "threads": ["-P", "threads", "-c", "32"]}


@contextlib.contextmanager
def working(pool: str, env: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """A worker with this pool, ready for tasks. Gives its log."""
    log = folder / f"per_task-{pool}.log"
    argv = python("-m", "celery", "-A", "jetrelay.bench.per_task", "worker", "-Q", "per_task", *POOLS[pool])
    with running([*argv, "--without-gossip", "--without-mingle", "--without-heartbeat"], env, log) as worker:
        wait_for_line(" ready.", worker, log)
        yield log


def compared(per_s: float, pools: Mapping[str, float]) -> Figures:
    """How many times faster this rate is than the better of the pools', and what these did."""
    best = max(pools, key=pools.__getitem__)
    return {
        "baseline_ratio": round(per_s / pools[best], 1),
        "baseline_per_s": round(pools[best]),
        "baseline_pool": best,
        **{f"baseline_{name}_per_s": round(rate) for name, rate in pools.items()},
    }
