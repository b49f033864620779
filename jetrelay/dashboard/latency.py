"""How long attempts took, out of the histogram that the tallies keep. Pure."""

from collections.abc import Sequence

from delivery.models import LATENCY_BOUNDS_MS

# The columns of AttemptTally, in the order of their bounds; the last has none.
BUCKETS = (*(f"ms_{bound}" for bound in LATENCY_BOUNDS_MS), "ms_over")


def quantile_ms(histogram: Sequence[float], share: float) -> float | None:
    """The duration that this share of attempts did not exceed, in ms; None where nothing was counted.

    Within a bucket attempts are taken to be spread evenly, as Prometheus' `histogram_quantile` does; what is slower than the
    last bound counts as that bound.
    """
    total = sum(histogram)
    if not total:
        return None
    rank, seen, lower = total * share, 0.0, 0.0
    for bound, count in zip(LATENCY_BOUNDS_MS, histogram, strict=False):
        if count and seen + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - seen) / count
        seen, lower = seen + count, float(bound)
    return lower
