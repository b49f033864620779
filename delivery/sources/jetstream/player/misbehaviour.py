"""How a host misbehaves, on request: everything here is off by default, and any of it goes with any other.

Nothing is left to chance. "After N events" counts the events that a connection has been sent; "every Nth event" counts
them too; connections are numbered from 1 in the order in which their handshakes were accepted. Seconds are counted
from the moment the host begins to misbehave in this way: its start, or the last change.
"""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

SEQ_LIMIT = 10**15  # from here on a cursor is a time

_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def _off(help: str, metavar: str = "N") -> Any:
    return field(default=None, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class Misbehaviour:
    """Raises ValueError, naming the field, when a value or a combination makes no sense. None is off."""

    silence_after: int | None = _off("send nothing more after N events; pings are still answered")
    silence_for_s: float | None = _off("end the silence after S seconds (default: never)", "S")
    silence_connections: int | None = _off("be silent on the first N connections only")
    abort_after: int | None = _off("drop the TCP connection, with no close frame, after N events")
    abort_connections: int | None = _off("drop the first N connections only")
    close_after: int | None = _off("close the connection after N events")
    close_code: int | None = _off("close code (default: 1000)", "CODE")
    close_reason: str | None = _off("close reason (default: none)", "TEXT")
    close_error: str | None = _off("on v2 send an error frame of this name before the close, such as ConsumerTooSlow", "NAME")
    close_connections: int | None = _off("close the first N connections only")
    refuse_connections: int | None = _off("answer the first N handshakes with 503")
    refuse_for_s: float | None = _off("answer handshakes with 503 for S seconds", "S")
    retry_after_s: int | None = _off("Retry-After of the 503, in seconds", "S")
    duplicate_every: int | None = _off("send every Nth event twice")
    seam_drop: int | None = _off("when a client that came with a cursor reaches the live tip, leave out the N events around that point")
    seam_reorder: int | None = _off("and send the N events around that point in reverse")
    withhold: str | None = _off("send no events of this collection", "NSID")
    withhold_from: int | None = _off("withhold it from the Nth connection on")
    withhold_for_s: float | None = _off("withhold it for S seconds (default: for good)", "S")
    jitter_s: float | None = _off("times go back by up to S seconds from one DID to another, never within one", "S")
    odd_time_every: int | None = _off("every Nth event of the log has a time far off, as imported records have")
    odd_time_by_s: float | None = _off("how far off, in seconds: negative is the past (default: ten years back)", "S")
    garbage_every: int | None = _off("put something malformed before every Nth event: one sort after another")
    damage_every: int | None = _off("where frames are compressed, damage that of every Nth event")
    pong_after_s: float | None = _off("answer a ping after S seconds", "S")
    no_pongs: bool = field(default=False, metadata={"help": "answer no ping"})
    keep_events: int | None = _off("keep the last N events only: older cursors are too old")
    keep_for_s: float | None = _off("keep the events of the last S seconds only, by their times", "S")
    handshake_never: bool = field(default=False, metadata={"help": "accept the TCP connection and never answer the handshake"})
    handshake_byte_every_s: float | None = _off("answer the handshake byte by byte, S seconds apart", "S")
    handshake_connections: int | None = _off("do so with the first N handshakes only")
    reset_after: int | None = _off("after the Nth connection, number from another first seq on all that come later")
    reset_seq: int | None = _off("that first seq (default: 1)")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None or isinstance(value, bool | str) or each.name == "odd_time_by_s":
                continue
            least = 1 if each.name.endswith(("_every", "_from")) else 0
            if value < least:
                raise ValueError(f"{each.name}: {value} is below {least}")
        if self.close_code is not None and self.close_code not in _CLOSE_CODES:
            raise ValueError(f"close_code: {self.close_code} may not be sent in a close frame")
        if len((self.close_reason or "").encode()) > 123:
            raise ValueError("close_reason: a close frame has room for 123 bytes")
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and all(_is_off(getattr(self, other)) for other in needed):
                raise ValueError(f"{name}: says nothing without {' or '.join(needed)}")

    @cached_property
    def touches_events(self) -> bool:
        """Whether any event of a connection may be treated differently from the one before."""
        counted = (self.silence_after, self.abort_after, self.close_after, self.duplicate_every, self.garbage_every, self.damage_every)
        return any(value is not None for value in counted)

    @property
    def odd_time_by_us(self) -> int:
        return int((_TEN_YEARS_BACK_S if self.odd_time_by_s is None else self.odd_time_by_s) * 1_000_000)


_TEN_YEARS_BACK_S = -10 * 365 * 24 * 3600

_NEEDS = {
    "silence_for_s": ("silence_after",),
    "silence_connections": ("silence_after",),
    "abort_connections": ("abort_after",),
    "close_code": ("close_after",),
    "close_reason": ("close_after",),
    "close_error": ("close_after",),
    "close_connections": ("close_after",),
    "retry_after_s": ("refuse_connections", "refuse_for_s"),
    "withhold_from": ("withhold",),
    "withhold_for_s": ("withhold",),
    "odd_time_by_s": ("odd_time_every",),
    "handshake_connections": ("handshake_never", "handshake_byte_every_s"),
    "reset_seq": ("reset_after",),
}


def _is_off(value: object) -> bool:
    return value is None or value is False


GOOD = Misbehaviour()


@dataclass(frozen=True)
class HostOptions:
    """One host: its clock, its numbers, and how it misbehaves.

    `skew_s` is how far its clock is ahead. `first_seq` is the number of the log's first event; None takes the numbers
    that the lines carry, and counts from 1 where they carry none. `number` shows the numbers on v1 too, as `cursor`.
    """

    skew_s: float = 0.0
    first_seq: int | None = None
    number: bool = False
    misbehaviour: Misbehaviour = GOOD

    def __post_init__(self) -> None:
        if self.first_seq is not None and not 0 <= self.first_seq < SEQ_LIMIT:
            raise ValueError(f"first_seq: {self.first_seq} is not between 0 and {SEQ_LIMIT:,}")
