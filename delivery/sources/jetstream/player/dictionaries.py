"""zstd dictionaries: the ones given, and one trained from the log for v2 when none is.

Each host of a process serves the same ones. A trained dictionary is made when it is first asked for, from the first
lines of the log as v2 frames; a log with few lines is helped out with made-up events. The same lines give the same
dictionary, and its id follows from what it was trained on, so that one id never means two dictionaries.
"""

from functools import cached_property
from pathlib import Path
from zlib import crc32

import zstandard

from delivery.sources.jetstream.player.log import Log
from delivery.sources.jetstream.player.wires import Event, parse, to_v2

_SAMPLES = 2_000  # of about 500 bytes: ten times and more of what the dictionary holds
_FEWEST_SAMPLES = 500
_SIZE = 64 * 1024
# The cover parameters that the trainer would otherwise search for, at a hundred times the cost.
_SEGMENT, _DMER = 200, 8
_FIRST_ID, _IDS = 100_000_000, 900_000_000
_MADE_UP_FROM_US = 1_780_000_000_000_000


class Dictionary:
    """One dictionary, and frames made with it. Raises ValueError when the bytes are no zstd dictionary with an id."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            made = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
            self.id = made.dict_id()
            if not self.id:
                raise ValueError("it has no id")
            self._compressor = zstandard.ZstdCompressor(dict_data=made)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def read(cls, path: Path) -> "Dictionary":
        """Raises OSError, and ValueError as above."""
        return cls(path.read_bytes())

    def compress(self, text: bytes) -> bytes:
        return self._compressor.compress(text)


class Dictionaries:
    """What this process compresses with: `v1` or None, and `v2`."""

    def __init__(self, log: Log, v1: Dictionary | None = None, v2: Dictionary | None = None) -> None:
        self._log = log
        self.v1 = v1
        self._given_v2 = v2

    @cached_property
    def v2(self) -> Dictionary:
        return self._given_v2 or train(self._log.first_lines(_SAMPLES))


def train(lines: list[bytes]) -> Dictionary:
    """A dictionary for these lines as v2 frames."""
    samples = _frames(lines)
    if len(samples) < _FEWEST_SAMPLES:
        samples += _frames(_made_up())
    id = _FIRST_ID + crc32(b"\n".join(samples)) % _IDS
    return Dictionary(zstandard.train_dictionary(_SIZE, samples, k=_SEGMENT, d=_DMER, dict_id=id).as_bytes())


def _frames(lines: list[bytes]) -> "list[bytes | bytearray | memoryview[int]]":
    events = [(position, event) for position, line in enumerate(lines, 1) if isinstance(event := parse(line), Event)]
    return [to_v2(event, event.time_us, event.seq or position) for position, event in events]


def _made_up() -> list[bytes]:
    # At this place, because the invented people are made with the player's own TIDs.
    from itertools import islice

    from delivery.sources.jetstream.demo_events import make

    return list(islice(make(1, _MADE_UP_FROM_US), _SAMPLES))
