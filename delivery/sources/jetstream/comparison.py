"""Compares what several hosts bring, to notice one that leaves a collection out. Pure.

Reconnecting does not help against a host that serves no events of one collection while the rest flows; only another
host shows it (jetstream.md). An event that one host brought has to come from each other host that reads in the
present; what has not come after a grace time is held against it.
"""

from dataclasses import dataclass

# How long another host may take to bring the same event. In seconds.
GRACE_S = 60.0
# An alarm ends when nothing was missed for so long.
CALM_S = 600.0
# A collection counts as left out once so many events of it were missed.
MIN_MISSED = 3
# Of each host, so many events are waited for at a time; past that, comparing pauses.
MAX_AWAITED = 100_000
# So many collections are watched at a time, over all hosts: anyone may invent them.
MAX_ALARMS = 1_000


@dataclass
class Alarm:
    """One collection that one host leaves out. Times in seconds, by the caller's clock."""

    host: str
    collection: str
    brought_by: str
    since_s: float
    last_s: float
    missed: int = 0


class Comparison:
    """The hosts of one stream. `now_s` never runs backwards."""

    def __init__(self, hosts: list[str]) -> None:
        # What each host still has to bring: dedup key -> since when, its collection, and who brought it.
        self._awaited: dict[str, dict[bytes, tuple[float, str, str]]] = {host: {} for host in hosts}
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._away: set[str] = set()

    def brought_first(self, host: str, key: bytes, collection: str, now_s: float, live: set[str]) -> None:
        """An event that is new. Those of the other hosts that are in the present have to bring it too."""
        for other, awaited in self._awaited.items():
            if other != host and other in live and len(awaited) < MAX_AWAITED:
                awaited[key] = (now_s, collection, host)

    def brought_again(self, host: str, key: bytes) -> None:
        self._awaited[host].pop(key, None)

    def start_over(self) -> None:
        """Something else is asked for: what each host owes is no longer sure."""
        for awaited in self._awaited.values():
            awaited.clear()

    def look(self, now_s: float, live: set[str]) -> list[Alarm]:
        """Hold what is overdue against its host. Returns the alarms that are new."""
        new = []
        for host in self._awaited:
            if host not in live:
                self._away.add(host)
                continue
            if host in self._away:
                # It goes on from where it was, and so has the whole grace time again.
                self._away.remove(host)
                self._awaited[host] = {key: (now_s, collection, by) for key, (_, collection, by) in self._awaited[host].items()}
            new += self._overdue(host, now_s)
        for place, alarm in list(self._alarms.items()):
            if now_s - alarm.last_s >= CALM_S:
                del self._alarms[place]
        return new

    def _overdue(self, host: str, now_s: float) -> list[Alarm]:
        new, awaited = [], self._awaited[host]
        while awaited:
            key, (since_s, collection, by) = next(iter(awaited.items()))
            if now_s - since_s < GRACE_S:
                break
            del awaited[key]
            alarm = self._alarms.get((host, collection))
            if alarm is None:
                if len(self._alarms) >= MAX_ALARMS:
                    continue
                alarm = self._alarms[host, collection] = Alarm(host, collection, by, since_s, now_s)
            alarm.missed += 1
            alarm.last_s = now_s
            if alarm.missed == MIN_MISSED:
                new.append(alarm)
        return new

    def alarms(self, host: str) -> list[Alarm]:
        return [alarm for alarm in self._alarms.values() if alarm.host == host and alarm.missed >= MIN_MISSED]
