"""The benchmarks by name. To add one, write a module with a `measure` and give it a line here."""

from jetrelay.bench import bystander, depth, drain, fanout, gateway, greed, ingest, intake, isolation, limit, matching, pages, pipeline, soak
from jetrelay.bench.interface import Measure

BENCHMARKS: dict[str, Measure] = {
    "limit": limit.measure,
    "drain": drain.measure,
    "pipeline": pipeline.measure,
    "intake": intake.measure,
    "ingest": ingest.measure,
    "gateway": gateway.measure,
    "isolation": isolation.measure,
    "bystander": bystander.measure,
    "greed": greed.measure,
    "fanout": fanout.measure,
    "matching": matching.measure,
    "depth": depth.measure,
    "pages": pages.measure,
    "soak": soak.measure,
}
