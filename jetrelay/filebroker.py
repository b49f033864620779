"""The file-system broker of the embedded default: kombu's, with messages that appear and vanish whole.

kombu 5.7 writes a message under its final name, so a reader can take it while it is still empty, and the worker ends on
the JSON error. Here a message is written aside and renamed into place, and taken by another rename; bindings stay in
memory, because every process that sends declares its queue first.
"""

import uuid
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads

from jetrelay import own_files

# The part of a name that `_put` makes up, by its length: a queue whose name ends like another's has other messages.
_ANY_MESSAGE = "?" * (20 + 1 + 32)


class Channel(filesystem.Channel):
    supports_fanout = False
    get_table = virtual.Channel.get_table
    _delete = virtual.Channel._delete

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        name = f"{time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        aside = Path(self.data_folder_out, f".{name}.new")
        # A message says little, and is still nobody else's.
        with open(aside, "x", opener=own_files.opener) as file:
            file.write(dumps(payload))  # type: ignore[no-untyped-call]
        aside.rename(Path(self.data_folder_out, name))

    def _get(self, queue: str, timeout: Any = None) -> Any:
        for waiting in sorted(Path(self.data_folder_in).glob(f"{_ANY_MESSAGE}.{queue}.msg")):
            taken = Path(self.processed_folder, waiting.name)
            try:
                waiting.rename(taken)
            except FileNotFoundError:
                continue  # another worker was quicker
            written = taken.read_text()
            taken.unlink()
            try:
                return loads(written)  # type: ignore[no-untyped-call]
            except ValueError:
                continue  # a full disk left half of it: one hint less
        raise Empty


class Transport(filesystem.Transport):
    Channel = Channel


def register() -> None:
    """Put this transport behind kombu's `filesystem://`."""
    TRANSPORT_ALIASES["filesystem"] = "jetrelay.filebroker:Transport"
