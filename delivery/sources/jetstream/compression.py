"""Compressed frames: each is one zstd frame, made with a dictionary that both sides know. No model, no database.

A v2 host hands its dictionary out; it is kept in a folder, so that a restart needs no download. The dictionary of the
v1 wire never changes (jetstream.md) and comes as a file from the operator.
"""

import contextlib
import logging
import re
import struct
import tempfile
import threading
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit, urlunsplit

import requests
import zstandard
from urllib3.exceptions import HTTPError

from delivery.sources.jetstream.frames import MAX_FRAME, one_line
from subscriptions.validation import V2_PATH

logger = logging.getLogger(__name__)

V1_DICTIONARY = 1612007021
_MAGIC = 0xEC30A437  # RFC 8878, section 5
_MAX_DICTIONARY = 16 * 1024 * 1024
_TIMEOUT_S = 10.0
# A host without a dictionary is not asked again for so long, however often it is connected to.
_ASK_AGAIN_S = 600.0


class Undecodable(Exception):
    """A compressed frame that cannot be read; the message says why, and `frame` is the frame."""

    frame = b""


class Dictionary:
    """A zstd dictionary. Raises ValueError when the bytes are none. Not thread-safe: one for each reading thread."""

    def __init__(self, content: bytes) -> None:
        if len(content) < 8 or struct.unpack("<I", content[:4]) != (_MAGIC,):
            raise ValueError("these bytes are no zstd dictionary")
        self.id: int = struct.unpack("<I", content[4:8])[0]
        try:
            self._decompressor = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(content))
            self._decompressor.decompress(zstandard.ZstdCompressor().compress(b""), max_output_size=1)
        except zstandard.ZstdError as error:
            raise ValueError(f"the zstd dictionary is damaged: {error}") from error

    def decompress(self, frame: bytes) -> bytes:
        """The text in one compressed frame. Raises Undecodable."""
        try:
            # A frame says how large it will be, and the library takes its word: look first.
            if zstandard.frame_content_size(frame) > MAX_FRAME:
                raise Undecodable(f"a compressed frame that would hold more than {MAX_FRAME:,} bytes")
            return self._decompressor.decompress(frame, max_output_size=MAX_FRAME)
        except zstandard.ZstdError as error:
            raise Undecodable(f"a frame that does not decompress: {error}") from error


def read_v1_dictionary(path: str) -> bytes:
    """The dictionary of the v1 wire from a file. Raises ValueError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    found = Dictionary(content).id
    if found != V1_DICTIONARY:
        raise ValueError(f"this is the dictionary with id {found}, but the v1 wire uses {V1_DICTIONARY}")
    return content


class _Download(threading.Thread):
    """The answer of one host to the question for its dictionary."""

    def __init__(self, url: str, user_agent: str) -> None:
        super().__init__(name="dictionary", daemon=True)
        self._url = url
        self._user_agent = user_agent
        self._content = b""
        self._problem = f"it was not there after {_TIMEOUT_S:.0f} s"

    def content(self) -> bytes:
        """Raises ValueError when it has not come."""
        if self._problem:
            raise ValueError(self._problem)
        return self._content

    def run(self) -> None:
        try:
            self._content, self._problem = self._get(), ""
        except (requests.RequestException, HTTPError, ValueError) as error:
            self._problem = str(error) or type(error).__name__

    def _get(self) -> bytes:
        parts = urlsplit(self._url)
        path = parts.path.removesuffix(V2_PATH) + "/xrpc/network.bsky.jetstream.getZstdDictionary"
        address = urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, path, "", ""))
        with requests.get(address, headers={"User-Agent": self._user_agent}, timeout=_TIMEOUT_S, stream=True, allow_redirects=False) as response:
            if response.status_code != 200:
                raise ValueError(f"the host answered {response.status_code}")
            content, deadline = b"", monotonic() + _TIMEOUT_S
            # What is there, however little: nobody waits any more for a host that sends a byte now and then.
            while piece := response.raw.read1(65_536, decode_content=True):
                content += piece
                if len(content) > _MAX_DICTIONARY:
                    raise ValueError(f"the host's dictionary has more than {_MAX_DICTIONARY:,} bytes")
                if monotonic() > deadline:
                    raise ValueError(f"it was not there after {_TIMEOUT_S:.0f} s")
            return content


class Dictionaries:
    """The dictionaries of v2 hosts, fetched once and kept in a folder. Thread-safe."""

    def __init__(self, folder: Path, user_agent: str) -> None:
        self._folder = folder
        self._user_agent = user_agent
        # Hosts that had none to give, or were slow to say so, and until when they are not asked again.
        self._not_before: dict[str, float] = {}

    def of(self, url: str) -> Dictionary | None:
        """The dictionary to ask this host for. None when it has none to give; then its frames come uncompressed."""
        return self._kept(url) or self._fetch(url)

    def forget(self, url: str) -> None:
        """The host does not know this dictionary any more."""
        with contextlib.suppress(OSError):
            self._file(url).unlink()

    def _kept(self, url: str) -> Dictionary | None:
        try:
            return Dictionary(self._file(url).read_bytes())
        except (OSError, ValueError):
            return None

    def _fetch(self, url: str) -> Dictionary | None:
        if monotonic() < self._not_before.get(url, 0.0):
            return None
        # On a thread of its own: the library bounds each step of an answer, but not all of them together.
        download = _Download(url, self._user_agent)
        download.start()
        download.join(_TIMEOUT_S)
        try:
            dictionary = Dictionary(content := download.content())
        except ValueError as error:
            logger.info("%s: no compression: the dictionary could not be fetched (%s).", url, one_line(str(error), 80))
            self._not_before[url] = monotonic() + _ASK_AGAIN_S
            return None
        self._keep(url, content)
        return dictionary

    def _keep(self, url: str, content: bytes) -> None:
        """Put it there whole or not at all. That it cannot be kept costs a download at the next start, no more."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as name:
                whole = Path(name) / "dictionary"
                whole.write_bytes(content)
                whole.replace(self._file(url))
        except OSError as error:
            logger.warning("The zstd dictionary of %s cannot be kept in %s: %s", url, self._folder, error.strerror)

    def _file(self, url: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', urlsplit(url).netloc)}.zstd-dictionary"


class Compression:
    """Whether to ask one host for compressed frames, and with which dictionary. It is a saving, never a condition."""

    def __init__(self, url: str, shared: Dictionaries | Dictionary | None) -> None:
        self._url = url
        self._shared = shared
        self._refused: int | None = None
        self._given_up = False

    def dictionary(self) -> Dictionary | None:
        """May download it."""
        if self._given_up:
            return None
        if not isinstance(self._shared, Dictionaries):
            return self._shared
        found = self._shared.of(self._url)
        if found is not None and found.id == self._refused:
            # Hosts behind one name that know different dictionaries: asking again leads nowhere.
            self._given_up = True
            return None
        return found

    def refuse(self, dictionary: int) -> None:
        """The host does not know this dictionary: another may be there to be fetched."""
        self._refused = dictionary
        if isinstance(self._shared, Dictionaries):
            self._shared.forget(self._url)

    def give_up(self) -> None:
        self._given_up = True
