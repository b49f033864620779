"""The broker: a round trip, and whether wakes pile up in it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import redis
from django.conf import settings

from jetrelay import writable
from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check

QUEUES = ("lanes", "default")
# BRPOP and ACLs as the client uses them.
OLDEST_REDIS = (6, 0)
# Wakes are few while workers take them: at most one for a lane and interval, and the schedule's.
MANY_WAKES = 1000
_TIMEOUTS = {"socket_connect_timeout": 2, "socket_timeout": 2}
_AWAY = "Until it is back, workers look for due deliveries themselves; replays and pruning wait."


def broker() -> Iterator[Finding]:
    if not settings.CELERY_BROKER_URL.startswith("redis"):
        yield from _files()
        return
    try:
        with redis.Redis.from_url(settings.CELERY_BROKER_URL, **_TIMEOUTS) as client:
            yield from _redis(client)
    except redis.RedisError as error:
        if writable.is_refusal(error):
            what, do = writable.why_redis(error)
            yield problem(f"Redis at {where()} takes no writes: {what}", f"{do} {_AWAY}")
            return
        words = " ".join(str(error).split())[:200]
        yield problem(f"Redis at {where()} does not answer: {words}", f"Is it running, and is BROKER_URL right? {_AWAY}")


def _redis(client: "redis.Redis") -> Iterator[Finding]:
    writable.try_redis(client)
    info = client.info()
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST_REDIS:
        yield warning(f"Redis {version}", f"Install {OLDEST_REDIS[0]} or newer.")
    most, used, policy = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0)), str(info.get("maxmemory_policy", "noeviction"))
    if most and policy != "noeviction":
        advice = "Wakes, rates and counts of guessed passwords may be thrown away: CONFIG SET maxmemory-policy noeviction, or a Redis of its own."
        yield warning(f"Redis throws keys away when {most >> 20:,} MB are full ({policy})", advice)
    if most and used > 0.9 * most:
        yield warning(
            f"{used / most:.0%} of Redis' {most >> 20:,} MB are in use", "When it is full it takes no wakes. Give it more, or find what else is in it."
        )
    if info.get("loading"):
        yield warning("Redis is still loading its data", "Wait for it.")
    yield from _waiting({queue: client.llen(queue) for queue in QUEUES})
    yield ok(f"Redis {version} at {where()} answers")


def _files() -> Iterator[Finding]:
    folder = Path(str(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_in"]))
    try:
        writable.try_folder(folder)
    except OSError as error:
        yield problem(f"{folder} cannot be written to: {error.strerror}", f"Make room, or give it to the user that Jetrelay runs as. {_AWAY}")
        return
    yield from _waiting({queue: sum(1 for _ in folder.glob(f"*.{queue}.msg")) for queue in QUEUES})
    yield ok(f"files in {folder} can be written and taken")


def _waiting(wakes: dict[str, int]) -> Iterator[Finding]:
    many = [f"{count:,} in {queue}" for queue, count in wakes.items() if count > MANY_WAKES]
    if many:
        yield warning(f"messages pile up: {', '.join(many)}", "Nobody takes them: start a worker with -Q lanes,default. Old ones expire by themselves.")


def where() -> str:
    """Host, port and number. Never the password."""
    parts = urlsplit(settings.CELERY_BROKER_URL)
    return f"{parts.hostname}:{parts.port or 6379}/{parts.path.strip('/') or 0}"


CHECKS = (Check("broker", broker),)
