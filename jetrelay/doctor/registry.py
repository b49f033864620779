"""Which checks there are, in the order in which they run and are told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from jetrelay.doctor.finding import Finding

# Each has its `CHECKS`. The first needs no settings; the others are imported only where there are some.
WITHOUT_SETTINGS = ("programs",)
WITH_SETTINGS = ("configuration", "database", "schema", "clock", "broker", "processes", "destinations", "stored", "disk")


@dataclass(frozen=True)
class Check:
    """`needs`: checks that must have found no problem, or this one is skipped. `limit_s`: after so long nobody waits for it any more."""

    name: str
    run: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    limit_s: float = 10.0

    @property
    def asks_database(self) -> bool:
        return "database" in (self.name, *self.needs)


def checks(families: Iterable[str] = (*WITHOUT_SETTINGS, *WITH_SETTINGS)) -> list[Check]:
    return [check for family in families for check in import_module(f"jetrelay.doctor.{family}").CHECKS]
