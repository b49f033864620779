"""The window: how much is claimed ahead for all lines of a process, and for whom.

What is claimed lies in memory until it is settled, and who claims much in one go makes others wait for it. So deliveries
that wait to be sent, those that are on their way too, and the bytes of large bodies are shared by tenant (`shares.py`).
Of a tenant's share its lines have parts by their weight; where that would be too little for each, they take turns.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from delivery.engines.base import Head, Subjects, Want
from delivery.lines import Line
from delivery.shares import Shares

# Deliveries that wait to be sent; with those that are on their way; and bytes of large bodies.
WAITING = 4000
OWNED = 65_536
MAX_BYTES = 256 * 1024 * 1024
# All that is claimed for one tenant in one go.
IN_ONE_GO = 2000
# What a line is given in any case, if it may have so many in flight: a tenant's endpoints that hang must not keep its others waiting.
LEAST = 32
# What a line that was caught up with is given at least. It has a backlog if there is more.
FEW = 4
# Ordered endpoints whose subjects are looked through in one go: each is a query of its own, of some milliseconds.
ORDERED = 8

Wanted = tuple[Line, Want | Head | Subjects]


class Window:
    """What is claimed at this moment for all lines together."""

    def __init__(self, lines: Iterable[Line], in_one_go: Callable[[object], int] = lambda _: IN_ONE_GO) -> None:
        self._shares = waiting, owned, held = Shares(WAITING), Shares(OWNED), Shares(MAX_BYTES)
        # Whether some lines have a backlog and were not asked.
        self.left_out = False
        self._in_one_go = in_one_go
        for line in lines:
            if line.owned:
                tenant = line.gate.tenant
                waiting.take(tenant, line.waiting)
                owned.take(tenant, len(line.owned))
                held.take(tenant, line.held_bytes)

    def wants(self, lines: Sequence[Line], now: datetime) -> list[Wanted]:
        """What these lines want to claim."""
        tenants: dict[object, list[Line]] = {}
        for line in lines:
            tenants.setdefault(line.gate.tenant, []).append(line)
        wanted: list[Wanted] = []
        for tenant, its in tenants.items():
            waiting, owned, held = (each.room(tenant) for each in self._shares)
            if owned and held:
                left = self._in_one_go(tenant)
                # Where others have but few, those that were caught up with take turns too.
                hungry = [line for line in its if left < IN_ONE_GO or not line.claims.exhausted]
                idle = [line for line in its if line.claims.exhausted] if left >= IN_ONE_GO else []
                wanted += _each(idle, max(FEW, min(waiting, owned) // len(idle)), now) if idle else ()
                wanted += self._of_hungry(hungry, min(waiting, owned), left, now)
        return self._in_turn(wanted)

    def _of_hungry(self, lines: list[Line], room: int, left: int, now: datetime) -> list[Wanted]:
        """A part by weight for each, and something in any case. Where that is too much for one go, others go first next time."""
        part = min(room, left) / (sum(line.weight for line in lines) or 1)
        lines.sort(key=lambda line: line.turn)
        first = lines[0].turn if lines else 0.0
        wanted: list[Wanted] = []
        for line in lines:
            if left <= 0:
                self.left_out = True
                break
            share = max(int(part * line.weight), min(line.max_in_flight, FEW if line.claims.exhausted else LEAST))
            if want := line.want(share, now):
                wanted.append((line, want))
                line.turn = max(line.turn, first) + 1 / line.weight
                left -= line.most
        return wanted

    def _in_turn(self, wanted: list[Wanted]) -> list[Wanted]:
        """All but those ordered ones that are too many for one go. Of each tenant one, then of each a second one, …"""
        ordered = [each for each in wanted if not isinstance(each[1], Want)]
        if len(ordered) <= ORDERED:
            return wanted
        self.left_out = True
        ordered.sort(key=lambda each: each[0].turn)
        first = ordered[0][0].turn
        places: dict[object, int] = {}
        numbered: list[tuple[int, int, Wanted]] = []
        for each in ordered:
            place = places[each[0].gate.tenant] = places.get(each[0].gate.tenant, -1) + 1
            numbered.append((place, len(numbered), each))
        chosen = [each for _, _, each in sorted(numbered)[:ORDERED]]
        for line, _ in chosen:
            line.turn = max(line.turn, first) + 1 / line.weight
        return [*(each for each in wanted if isinstance(each[1], Want)), *chosen]


def _each(lines: Iterable[Line], share: int, now: datetime) -> list[Wanted]:
    """The same for each that was caught up with."""
    return [(line, want) for line in lines if (want := line.want(share, now))]
