"""A request as a command for a POSIX shell: what anybody wrote is quoted, and what is masked comes from the environment. Pure."""

import shlex

from jetrelay.dashboard.deliveries.sent import Header, Sent

# More than this is offered as a file: terminals and people have enough of it, and so has the kernel at 128 KiB.
MAX_INLINE = 16 * 1024
# curl makes these itself.
_CURLS_OWN = frozenset({"host", "accept", "content-length"})
# Escapes and the like would be taken by the terminal that the command is pasted into, and no argument can hold a NUL. Marks of direction
# would let a command look like another one.
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = frozenset(map(chr, (*range(32), *range(127, 160), *_DIRECTIONS))) - {"\t", "\n"}


def command(sent: Sent, file: str) -> str:
    """The whole command. A body that no argument can carry is read from `file`, which whoever runs it has downloaded."""
    # Without --globoff curl would read brackets and braces of the URL as a pattern; an empty Expect sends a large body at once.
    parts = ["curl --globoff --request POST", shlex.quote(sent.url)]
    parts += [f"--header {_quoted(header)}" for header in sent.headers if header.name.lower() not in _CURLS_OWN]
    parts.append("--header 'Expect:'")
    # --data-raw differs from --data-binary in that a body may begin with an @.
    parts.append(f"--data-raw {shlex.quote(sent.text)}" if fits(sent) else f"--data-binary @{shlex.quote(file)}")
    return " \\\n  ".join([f"{parts[0]} {parts[1]}", *parts[2:]])


def fits(sent: Sent) -> bool:
    """Whether the body can stand in the command itself."""
    return sent.body is not None and len(sent.body) <= MAX_INLINE and sent.is_text and _CONTROLS.isdisjoint(sent.text)


def _quoted(header: Header) -> str:
    line = shlex.quote(f"{header.name}: {header.value}")
    return f'{line}"${header.variable}"' if header.variable else line
