"""The data directory: whether it can be written to, and how much room there is."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from jetrelay import generated_secrets
from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check

# A day of a busy stream; and what a database needs to go on at all.
LITTLE, TOO_LITTLE = 2 << 30, 200 << 20


def disk() -> Iterator[Finding]:
    folder: Path = settings.DATA_DIR
    sqlite = str(settings.DATABASES["default"]["ENGINE"]).endswith("sqlite3")
    needed = sqlite or not settings.CELERY_BROKER_URL.startswith("redis")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        told = f"{folder} cannot be written to: {error.strerror}"
        yield (
            problem(told, "Set JETRELAY_DATA_DIR to a folder of the user that Jetrelay runs as.")
            if needed
            else ok(f"{told}; with PostgreSQL and Redis nothing has to be")
        )
    secrets = folder / generated_secrets.FILE_NAME
    if secrets.exists() and secrets.stat().st_mode & 0o077:
        yield warning(f"{secrets} can be read by others", f"It holds the keys of everything: chmod 600 {secrets}")
    places = dict.fromkeys([folder, *([Path(str(settings.DATABASES["default"]["NAME"])).parent] if sqlite else [])])
    for place in places:
        if place.exists():
            yield _room(place)


def _room(place: Path) -> Finding:
    found = shutil.disk_usage(place)
    told = f"{found.free / (1 << 30):,.1f} of {found.total / (1 << 30):,.0f} GB are free at {place}"
    advice = "Make room, or keep less: JETRELAY_RETENTION_DAYS, and `manage.py prune --all`. SQLite fills what is free in its file first."
    return problem(told, advice) if found.free < TOO_LITTLE else warning(told, advice) if found.free < LITTLE else ok(told)


CHECKS = (Check("disk", disk),)
