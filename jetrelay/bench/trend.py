"""What the samples of a soak say: early against late, and what does not hold."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

from jetrelay.bench.interface import Figures
from jetrelay.bench.proc import Process
from jetrelay.bench.tables import Table, Tables

# The goal for memory, from issue 8.
MOST_GROWTH_PERCENT = 10.0
# The server's own processes, one after the other on average.
BACKENDS = "backends"
_MB = 1024 * 1024


class Span(NamedTuple):
    """How a soak is divided, in seconds: memory is compared from the warm-up on, tables from the time on when rows are pruned."""

    total_s: float
    warm_up_s: float
    keep_s: float
    window_s: float

    @property
    def pruned_s(self) -> float:
        return self.warm_up_s + self.keep_s


@dataclass(frozen=True)
class Sample:
    """Everything at one moment, in seconds since the first one."""

    at_s: float
    processes: Mapping[str, Process]
    tables: Tables
    # What it took to look.
    look_ms: float

    def own(self) -> dict[str, int]:
        """The memory of each process, in bytes; the sink is the benchmark's own affair."""
        found = {name: each.own for name, each in self.processes.items() if not name.startswith("sink")}
        return found | ({BACKENDS: self.tables.backend} if self.tables.backend else {})

    def line(self) -> str:
        own = "  ".join(f"{name} {size / _MB:.0f} MB" for name, size in self.own().items())
        told = self.tables
        return (
            f"{self.at_s:6.0f} s  stored {told.stored:,}  delivered {told.delivered:,}  pending {told.pending:,}"
            f"  claim {told.claim_ms:.1f} ms  unaccounted {told.account.unaccounted}  {own}"
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        tables = asdict(self.tables) | {"account": self.tables.account._asdict()}
        return {
            "at_s": round(self.at_s, 2),
            "look_ms": round(self.look_ms, 1),
            "processes": {name: each._asdict() for name, each in self.processes.items()},
            "tables": tables,
        }


class _Windows(NamedTuple):
    """The first and the last samples of something."""

    first: Sequence[Sample]
    last: Sequence[Sample]

    def medians(self, of: Callable[[Sample], float]) -> tuple[float, float]:
        return median(map(of, self.first)), median(map(of, self.last))


def trend(samples: Sequence[Sample], span: Span, rate: float, told: Mapping[str, float]) -> Figures:
    """The figures of a soak; `told` are those that come from elsewhere. The last sample was taken when the stream had ended."""
    running, end = samples[:-1], samples[-1].tables
    last = [each for each in running if each.at_s >= span.total_s - span.window_s]
    early = _Windows(_within(running, span.warm_up_s, span.window_s), last)
    settled = _Windows(_within(running, span.pruned_s, span.window_s), last)
    processes = {name: _process(name, early, running) for name in early.first[0].own()}
    worst = max(processes, key=lambda name: processes[name]["growth_percent"])
    tables = {name: _table(name, settled) for name in end.sizes if all(name in each.tables.sizes for each in running)}
    growth = processes[worst]["growth_percent"]
    # What the listener is behind: how much later it is than when it was least late. The player's clock runs for all alike.
    behind = [each.at_s - each.tables.received / rate for each in running]
    late_first, late_last = settled.medians(lambda each: max(0.0, each.tables.oldest_s - span.keep_s))
    claim_first, claim_last = settled.medians(lambda each: each.tables.claim_ms)
    figures: Figures = {
        "name": "soak",
        "ratio": round(1 + growth / 100, 3),
        "worst_process": worst,
        "memory_growth_percent": growth,
        "unaccounted": max(each.tables.account.unaccounted for each in samples),
        **told,
        "gaps": max(each.tables.gaps for each in running),
        "dead": end.dead,
        "offered_events_per_s": round(rate),
        "stored_events_per_s": round((last[-1].tables.stored - early.first[0].tables.stored) / (last[-1].at_s - early.first[0].at_s)),
        "stored": end.stored,
        "delivered": end.delivered,
        "stored_lag_max_s": round(max(behind) - min(behind), 2),
        "waited_max_s": round(max(each.tables.waited_s for each in running), 2),
        "prune_lag_first_s": round(late_first, 1),
        "prune_lag_last_s": round(late_last, 1),
        "claim_first_ms": round(claim_first, 3),
        "claim_last_ms": round(claim_last, 3),
        **_blocks(settled),
        "look_ms": round(median(each.look_ms for each in running), 1),
        "samples": len(samples),
        "seconds_s": span.total_s,
        "warm_up_s": span.warm_up_s,
        "keep_s": span.keep_s,
        "window_s": span.window_s,
    }
    figures["verdict"] = "; ".join(_complaints(figures)) or "holds"
    return figures | {"processes": processes, "tables": tables}


def _complaints(figures: Figures) -> Iterable[str]:
    """What of the promises did not hold. Bloat and claims are for people to judge: vacuum comes and goes."""
    if figures["memory_growth_percent"] > MOST_GROWTH_PERCENT:
        yield f"{figures['worst_process']} grew by {figures['memory_growth_percent']} %"
    for name in ("unaccounted", "lost", "duplicates", "metrics_differ", "gaps", "dead", "pages_failed"):
        if figures[name]:
            yield f"{name}: {figures[name]}"


def _within(samples: Sequence[Sample], since_s: float, window_s: float) -> Sequence[Sample]:
    """Those of a window; at least the next one, as a slow machine takes them late."""
    return [each for each in samples if since_s <= each.at_s < since_s + window_s] or [next(each for each in samples if each.at_s >= since_s)]


def _process(name: str, windows: _Windows, running: Sequence[Sample]) -> dict[str, Any]:
    first, last = windows.medians(lambda each: each.own().get(name, 0))
    found = {"first_mb": round(first / _MB, 1), "last_mb": round(last / _MB, 1), "growth_percent": _growth(first, last)}
    seen = [each for each in running if name in each.processes]
    if not seen:
        connections = windows.medians(lambda each: each.tables.connections or 0)
        return found | {"resident_mb": "", "files_first": int(connections[0]), "files_last": int(connections[1]), "cpu_percent": ""}
    files = windows.medians(lambda each: each.processes[name].files or 0)
    spent_s = (seen[-1].processes[name].cpu_s - seen[0].processes[name].cpu_s) / (seen[-1].at_s - seen[0].at_s or 1)
    return found | {
        "resident_mb": round(seen[-1].processes[name].resident / _MB, 1),
        "files_first": int(files[0]),
        "files_last": int(files[1]),
        "cpu_percent": round(spent_s * 100, 1),
    }


def _table(name: str, windows: _Windows) -> dict[str, Any]:
    def medians(of: Callable[[Table], float]) -> tuple[float, float]:
        return windows.medians(lambda each: of(each.tables.sizes[name]))

    table, index = medians(lambda each: each.table), medians(lambda each: each.indexes)
    dead = medians(lambda each: 100 * each.dead / (each.live + each.dead or 1))
    by_row = medians(lambda each: each.indexes / (each.live or 1))
    return {
        "first_mb": round(table[0] / _MB, 1),
        "last_mb": round(table[1] / _MB, 1),
        "indexes_first_mb": round(index[0] / _MB, 1),
        "indexes_last_mb": round(index[1] / _MB, 1),
        "index_first_bytes": round(by_row[0]),
        "index_last_bytes": round(by_row[1]),
        "dead_first_percent": round(dead[0], 1),
        "dead_last_percent": round(dead[1], 1),
    }


def _blocks(windows: _Windows) -> dict[str, float]:
    if windows.last[0].tables.claim_blocks is None:
        return {}
    first, last = windows.medians(lambda each: each.tables.claim_blocks or 0)
    return {"claim_first_blocks": int(first), "claim_last_blocks": int(last)}


def _growth(first: float, last: float) -> float:
    return round((last / first - 1) * 100, 1) if first else 0.0
