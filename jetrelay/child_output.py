"""What child processes print, made fit for a terminal or for a program: whole lines, without the power to move a cursor, and without secrets."""

import codecs
import sys

import msgspec

from jetrelay.logs import masking, rendering

# A child may print megabytes without a newline: they come out in pieces of this many characters.
LONGEST_LINE = 16_384


def print_line(line: str) -> None:
    # A terminal that is not in UTF-8 shows what it can.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


class Lines:
    """Cuts what a child prints into lines that are safe to show, whatever the bytes are."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._open = ""

    def feed(self, data: bytes, final: bool = False) -> list[str]:
        *whole, self._open = (self._open + self._decoder.decode(data, final)).split("\n")
        if final and self._open:
            whole.append(self._open)
            self._open = ""
        if len(self._open) > LONGEST_LINE:
            whole.append(self._open)
            self._open = ""
        return [shown(piece) for line in whole for piece in cut(line)]


def cut(line: str) -> list[str]:
    return [line[start : start + LONGEST_LINE] for start in range(0, len(line), LONGEST_LINE)] or [""]


def shown(line: str) -> str:
    """The line with control characters spelled out: logs quote strangers, who must not move the terminal's cursor."""
    return rendering.spelled(line.rstrip("\r"))


def for_people(line: str) -> str:
    """What our own processes log hides its secrets already; what a child prints as it fails does not."""
    return masking.text(line)


def for_programs(name: str, line: str) -> str:
    """One JSON object, with the process's name in it: the child's own, or one made around what it printed."""
    if line.startswith(rendering.BEGINNING):
        try:
            _OBJECT.decode(line)
        except msgspec.DecodeError:
            pass
        else:
            return f'{{"process":{msgspec.json.encode(name).decode()},{line[1:]}'
    return rendering.plain("info", name, line, process=name)


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
