"""The greedy tenants by name. To add one, write a class and give it a line here."""

from jetrelay.bench.greedy import asking, sending
from jetrelay.bench.greedy.tenant import Greedy

GREEDY: dict[str, type[Greedy]] = {
    each.name: each
    for each in (
        sending.Places,
        asking.FanOut,
        sending.Headers,
        sending.Trickle,
        sending.Large,
        sending.Names,
        asking.Posters,
        asking.ManyKeys,
        asking.Calls,
        asking.Pages,
        asking.Outward,
        asking.Replays,
        sending.Failing,
        sending.Subjects,
        sending.Rates,
        asking.Keys,
    )
}
