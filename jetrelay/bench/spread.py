"""Percentiles of what was measured."""

from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """By nearest rank: a value that was measured. `ordered` rises and is not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def percentiles_ms(name: str, ordered: Sequence[float]) -> dict[str, float]:
    """`{name}_p50_ms` and so on."""
    return {f"{name}_p{percent}_ms": round(percentile(ordered, percent), 1) for percent in (50, 95, 99)}
