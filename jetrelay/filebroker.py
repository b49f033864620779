"""The file-system broker of the embedded default: kombu's, with messages that appear and vanish whole.

kombu 5.7 writes a message under its final name, so a reader can take it while it is still empty, and the worker ends on
the JSON error. Here a message is written aside and renamed into place, and taken by another rename; bindings stay in
memory, because every process that sends declares its queue first.
"""

import os
import uuid
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):  # type: ignore[misc]
    supports_fanout = False
    get_table = virtual.Channel.get_table
    _delete = virtual.Channel._delete

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        name = f"{time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        aside = Path(self.data_folder_out, f".{name}.new")
        aside.write_text(dumps(payload))
        aside.rename(Path(self.data_folder_out, name))

    def _get(self, queue: str) -> Any:
        for name in sorted(os.listdir(self.data_folder_in)):
            if not name.endswith(f".{queue}.msg") or name.startswith("."):
                continue
            taken = Path(self.processed_folder, name)
            try:
                Path(self.data_folder_in, name).rename(taken)
            except FileNotFoundError:
                continue  # another worker was quicker
            payload = loads(taken.read_text())
            taken.unlink()
            return payload
        raise Empty


class Transport(filesystem.Transport):  # type: ignore[misc]
    Channel = Channel


def register() -> None:
    """Put this transport behind kombu's `filesystem://`."""
    TRANSPORT_ALIASES["filesystem"] = "jetrelay.filebroker:Transport"
