"""The families of metrics that Prometheus reads, made from rows. All names begin with `jetrelay_`."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric

# Where labels are bounded, what stands for all the rest.
OTHER = "other"

Labels = tuple[str, ...]
Rows = Iterable[tuple[Labels, float]]
Families = Iterator[Metric]


def gauge(name: str, help: str, labels: str, rows: Rows) -> Metric:
    """`labels`: their names, in the order of the values in each row, separated by spaces."""
    family = GaugeMetricFamily(f"jetrelay_{name}", help, labels=labels.split())
    for values, number in rows:
        family.add_metric(values, number)
    return family


def counter(name: str, help: str, labels: str, rows: Rows) -> Metric:
    """The name goes without its `_total`."""
    family = CounterMetricFamily(f"jetrelay_{name}", help, labels=labels.split())
    for values, number in rows:
        family.add_metric(values, number)
    return family


def histogram(name: str, help: str, labels: str, bounds_s: Sequence[float], rows: Iterable[tuple[Labels, Sequence[int], float]]) -> Metric:
    """Each row: its labels, the counts of its buckets (not cumulative, the last one beyond all bounds), and the sum of what was observed."""
    family = HistogramMetricFamily(f"jetrelay_{name}", help, labels=labels.split())
    for values, counts, total in rows:
        below, buckets = 0, []
        for bound, count in zip((*map(str, bounds_s), "+Inf"), counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        family.add_metric(values, buckets, total)
    return family


def info(name: str, help: str, labels: str, rows: Iterable[Labels]) -> Metric:
    """The name goes without its `_info`."""
    names = labels.split()
    family = InfoMetricFamily(f"jetrelay_{name}", help)
    for values in rows:
        family.add_metric([], dict(zip(names, values, strict=True)))
    return family
