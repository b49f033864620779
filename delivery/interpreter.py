"""How Python itself is set in processes whose threads wait for each other."""

import ctypes
import gc
import sys

# Python's own is 5 ms. Each answer of the database and each finished request needs the interpreter for a moment: while a backlog
# drains at full speed, others would wait those 5 ms a dozen times for a single delivery. Much shorter, and a tenth of a worker goes
# into handing over.
SWITCH_INTERVAL_S = 0.001
# New containers before the youngest generation is looked at, and how often the next one is, and the oldest. Python's own (700,
# 10, 10) spends a quarter of a busy worker's time on rows that are no cycles; this is more than the rows of a full window.
THRESHOLDS = (50_000, 10, 10)


# From this size on, in bytes, a block of memory is the system's own and goes back to it.
LARGE_BLOCK = 1024 * 1024
# mallopt(3), of glibc.
_M_MMAP_THRESHOLD = -3


def take_short_turns() -> None:
    """Let threads hand over sooner."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def collect_rarely() -> None:
    """Keep what is loaded by now out of garbage collections, and make these rarer. To be called once all is loaded.

    Some 500,000 objects of Django, Celery and ours are there for good. Looking at them stopped every thread of a busy
    worker for 0.1 s once a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def return_large_blocks() -> None:
    """Keep the holes out of the heap that large dictionaries leave each time they are laid out anew.

    glibc raises the size from which blocks are the system's own as soon as one of them is freed. A listener's memory of its last 200,000
    events then grew by 20 MB in steps, within minutes or hours. Other systems have nothing to be told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
