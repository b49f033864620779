"""Secrets that `manage.py up` makes on its first run, kept in the data directory.

An installation that is configured by environment variables alone never has this file.
"""

import json
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet

from jetrelay import own_files

FILE_NAME = "secrets.json"


def _new_encryption_key() -> str:
    return str(Fernet.generate_key(), "ascii")


_GENERATORS = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "JETRELAY_ENCRYPTION_KEYS": _new_encryption_key,
}


def load(data_dir: Path) -> dict[str, str]:
    """The secrets generated earlier, or an empty dict. Raises ValueError for an unreadable file."""
    path = data_dir / FILE_NAME
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        advice = "Let it be a file of the user who runs this, in a folder of theirs, or set JETRELAY_DATA_DIR to another folder"
        raise ValueError(f"{path} cannot be read: {error.strerror}. {advice}.") from error
    except ValueError as error:
        advice = "Put it back from a backup: without its keys no stored secret can be read"
        raise ValueError(f"{path} holds no JSON ({error}). {advice}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return found


def ensure(data_dir: Path) -> dict[str, str]:
    """Write what is missing, readable by the owner alone, and return all of it."""
    own_files.make_folder(data_dir)
    found = load(data_dir)
    missing = {name: make() for name, make in _GENERATORS.items() if not found.get(name)}
    if missing:
        found |= missing
        path = data_dir / FILE_NAME
        # Written aside and renamed, so that a crash half-way never leaves half a key behind.
        aside = path.with_suffix(".new")
        # One that a crash has left, or that somebody has put there, would keep its own mode.
        aside.unlink(missing_ok=True)
        with open(aside, "x", opener=own_files.opener) as file:
            json.dump(found, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    return found
