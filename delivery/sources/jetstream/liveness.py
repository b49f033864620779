"""Whether a host's stream has come to the present, and for how long it has been silent. Pure: times are arguments.

A host's clock may be wrong, so a small lag is one sign of the present, and a lag that no longer shrinks is the other.
"""

from collections import deque

# A lag up to this is the present. In µs.
_NEAR_US = 5_000_000
# A lag that changes by less than this in so many looks is that of a clock. In µs.
_STEADY_US = 200_000
_LOOKS = 5


class Liveness:
    """`begin`, `hear` and `end` belong to the thread that reads; `look` once a second to the one that stores.

    Times in s are of the monotonic clock; lags are this machine's Unix clock less the host's, in µs.
    """

    def __init__(self) -> None:
        # At the last event of this connection that had not been read before.
        self.lag_us: int | None = None
        # The same, of any connection.
        self.last_lag_us: int | None = None
        self._heard_s: float | None = None
        self._connected_s: float | None = None
        # The start of the connection that was found live: a look that takes long must not say so of the next one.
        self._live_s: float | None = None
        self._lags: deque[int] = deque(maxlen=_LOOKS)

    @property
    def live(self) -> bool:
        return self._live_s is not None and self._live_s == self._connected_s

    def begin(self, now_s: float) -> None:
        self.lag_us = self._heard_s = None
        self._lags.clear()
        self._connected_s = now_s

    def end(self) -> None:
        self._connected_s = None

    def hear(self, now_s: float, lag_us: int | None) -> None:
        """An event came. None as its lag: it was read before, and its age says nothing about the stream."""
        if lag_us is not None:
            self._heard_s = now_s
            self.lag_us = self.last_lag_us = lag_us

    def silent_s(self, now_s: float) -> float | None:
        """Since the last event that is new, or the connection. None while there is no connection."""
        connected_s, heard_s = self._connected_s, self._heard_s
        if connected_s is None:
            return None
        return now_s - (connected_s if heard_s is None else heard_s)

    def look(self, now_s: float, quiet_s: float) -> None:
        """A stream that is silent for `quiet_s` has nothing to catch up with."""
        connected_s, lag_us = self._connected_s, self.lag_us
        silent_s = self.silent_s(now_s)
        if silent_s is None or self.live:
            return
        if lag_us is not None:
            self._lags.append(lag_us)
        # A copy: the other thread may begin a connection meanwhile.
        lags = list(self._lags)
        steady = len(lags) == _LOOKS and max(lags) - min(lags) < _STEADY_US
        near = lag_us is not None and -_NEAR_US < lag_us < _NEAR_US
        if silent_s >= quiet_s or steady or near:
            self._live_s = connected_s
