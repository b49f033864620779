"""The data directory: whether it can be written to, how much room there is, and who else may look into it."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from jetrelay import own_files
from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check

# A day of a busy stream; and what a database needs to go on at all.
LITTLE, TOO_LITTLE = 2 << 30, 200 << 20

# Of what is too open.
MOST_NAMED = 10


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
    places = dict.fromkeys([folder, *([Path(str(settings.DATABASES["default"]["NAME"])).parent] if sqlite else [])])
    for place in places:
        if place.exists():
            yield _room(place)


def modes() -> Iterator[Finding]:
    """What was too open when this program started, and is it still. Programs close it by themselves, where it is theirs to close."""
    files = settings.JETRELAY_FILES
    found = own_files.too_open(**files)
    for each in found[:MOST_NAMED]:
        because = f"; it was left so, because {each.why_left}" if each.why_left else ""
        advice = f"Who reads it gets in, or gets at what is stored: {each.advice}"
        yield warning(f"{each.path} is open to other users of this machine ({each.mode:04o}){because}", advice)
    if len(found) > MOST_NAMED:
        yield warning(f"{len(found) - MOST_NAMED:,} more are", "Start any program of Jetrelay as the user that it runs as: it closes what is that user's.")
    owner = own_files.owner_of_others(files["data_dir"])
    if owner is not None:
        advice = "They can put other files in the place of Jetrelay's: give the folder to the user that Jetrelay runs as, or run this as that user."
        yield warning(f"{files['data_dir']} belongs to user {owner}, and this is user {os.geteuid()}", advice)
    written = settings.BASE_DIR / ".env"
    if (mode := _mode(written)) & 0o077:
        yield warning(f"{written} can be read by others ({mode:04o})", f"It holds the keys of everything: chmod 600 {written}")
    if not found and owner is None and not mode & 0o077:
        yield ok("nothing that is stored here is open to other users of this machine")


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _room(place: Path) -> Finding:
    found = shutil.disk_usage(place)
    told = f"{found.free / (1 << 30):,.1f} of {found.total / (1 << 30):,.0f} GB are free at {place}"
    advice = "Make room, or keep less: JETRELAY_RETENTION_DAYS, and `manage.py prune --all`. SQLite fills what is free in its file first."
    return problem(told, advice) if found.free < TOO_LITTLE else warning(told, advice) if found.free < LITTLE else ok(told)


CHECKS = (Check("disk", disk), Check("files", modes))
