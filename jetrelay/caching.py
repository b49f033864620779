"""The cache where there is a Redis: what is remembered is forgotten while Redis is away or takes nothing, and no page fails of it.

Counts are another matter: who adds up tries must hear that nobody counts them, and then counts by itself (`jetrelay/counting.py`).
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import redis
from django.core.cache.backends.redis import RedisCache

logger = logging.getLogger(__name__)

T = TypeVar("T")
# While Redis is silent nobody waits for it again and again: a page looks several things up.
_REST_S = 5.0


class Forgetful(RedisCache):
    """Django's, whose `get`, `set` and `delete` never fail. `add`, `incr` and `decr` do."""

    _rest_until = 0.0

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._or(default, lambda: super(Forgetful, self).get(key, default, version))

    def get_many(self, keys: Any, version: Any = None) -> Any:
        return self._or({}, lambda: super(Forgetful, self).get_many(keys, version))

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        self._or(None, lambda: super(Forgetful, self).set(key, value, *args, **kwargs))

    def set_many(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        return self._or(list(data), lambda: super(Forgetful, self).set_many(data, *args, **kwargs))

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._or(False, lambda: super(Forgetful, self).delete(key, version))

    def get_or_set(self, key: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
        found = self.get(key, self._missing_key)
        if found is not self._missing_key:
            return found
        made = default() if callable(default) else default
        self.set(key, made, *args, **kwargs)
        return made

    def _or(self, otherwise: T, ask: Callable[[], T]) -> T:
        if monotonic() < Forgetful._rest_until:
            return otherwise
        try:
            return ask()
        except redis.RedisError as error:
            # A refusal comes at once; silence takes as long as its time-out.
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                Forgetful._rest_until = monotonic() + _REST_S
            logger.warning("The cache cannot be used, so that sums are made afresh: %s. Check BROKER_URL and Redis.", error)
            return otherwise
