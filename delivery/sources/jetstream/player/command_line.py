"""Hosts as a command line says them: options for all hosts, lists with a value for each, and `K:NAME=VALUE` for the K-th.

--silence-after 100                     every host
--skew 0,3.5                            one value for each host
--host-option 2:withhold=app.bsky.feed.like --host-option 2:no-pongs
"""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from difflib import get_close_matches
from math import isfinite
from types import NoneType
from typing import Any, get_args

from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour

Values = dict[str, Any]
_MAX_HOSTS = 100


class BadHosts(ValueError):
    """What the command line says about the hosts makes no sense; the message names the option and says what would."""


def add_arguments(parser: ArgumentParser) -> None:
    hosts = parser.add_argument_group("hosts", "Several hosts serve the same events, each with its own clock, numbers and misbehaviour.")
    hosts.add_argument("--hosts", type=_hosts, default=1, metavar="N", help="serve on N ports, from --port on (default: %(default)s)")
    hosts.add_argument("--skew", metavar="S,…", help="by how many seconds each host's clock is ahead; --skew=-2,0 where the first is behind")
    hosts.add_argument("--first-seq", metavar="N,…", help="the number of the first event on each host (default: those in the file, else 1)")
    hosts.add_argument("--number", action="store_true", help='show the numbers on v1 too, as "cursor", and take them as cursors there')
    hosts.add_argument(
        "--host-option",
        action="append",
        default=[],
        metavar="K:NAME[=VALUE]",
        help="an option for the K-th host alone, such as 2:withhold=app.bsky.feed.like or 1:no-pongs; repeat it for more. "
        "NAME is any below without its dashes, or skew, first-seq or number",
    )
    wrong = parser.add_argument_group("misbehaviour", "Of every host, unless said with --host-option. Any of it goes with any other; all is off by default.")
    for each in fields(Misbehaviour):
        if _type(each) is bool:
            wrong.add_argument(f"--{spelt(each.name)}", action="store_true", help=each.metadata["help"])
        else:
            convert = _argument_type(_type(each))
            wrong.add_argument(f"--{spelt(each.name)}", type=convert, metavar=each.metadata["metavar"], help=each.metadata["help"])


def read_hosts(given: Mapping[str, Any]) -> list[HostOptions]:
    """The hosts that the parsed arguments describe. Raises BadHosts."""
    count = given["hosts"]
    skews, first_seqs = _each(given["skew"], count, "skew", float), _each(given["first_seq"], count, "first-seq", int)
    for_all = {each.name: given[_destination(each.name)] for each in fields(Misbehaviour)}
    hosts: list[Values] = [
        for_all | {"skew_s": skew or 0.0, "first_seq": first_seq, "number": given["number"]} for skew, first_seq in zip(skews, first_seqs, strict=True)
    ]
    for text in given["host_option"]:
        number, values = _host_option(text, count)
        hosts[number - 1].update(values)
    return [_host(values) for values in hosts]


def spelt(name: str) -> str:
    """The option of a field: silence_for_s is silence-for, as its help names the unit."""
    return name.removesuffix("_s").replace("_", "-")


def _destination(name: str) -> str:
    return spelt(name).replace("-", "_")


def _host(values: Values) -> HostOptions:
    own = {each.name for each in fields(HostOptions)}
    try:
        wrong = Misbehaviour(**{name: value for name, value in values.items() if name not in own})
        return HostOptions(**{name: value for name, value in values.items() if name in own}, misbehaviour=wrong)
    except ValueError as error:
        raise BadHosts(_respelt(str(error))) from error


def _host_option(text: str, count: int) -> tuple[int, Values]:
    number, colon, setting = text.partition(":")
    name, equals, value = setting.partition("=")
    if not (colon and number.isascii() and number.isdigit() and name):
        raise BadHosts(f"--host-option {text}: write the host's number, a colon and an option, such as 2:withhold=app.bsky.feed.like")
    if not 1 <= int(number) <= count:
        raise BadHosts(f"--host-option {text}: there is no host {number}, as --hosts is {count}")
    known = {spelt(each.name): each for each in (*fields(Misbehaviour), *fields(HostOptions)) if each.name != "misbehaviour"}
    if name not in known:
        close = get_close_matches(name, known, 1)
        raise BadHosts(f"--host-option {text}: there is no option {name!r}{f'; did you mean {close[0]}?' if close else ', see --help'}")
    return int(number), {known[name].name: _setting(text, known[name], value, bool(equals))}


def _setting(text: str, field: "Field[Any]", value: str, is_given: bool) -> Any:
    kind = _type(field)
    if kind is bool:
        if is_given:
            raise BadHosts(f"--host-option {text}: {spelt(field.name)} takes no value")
        return True
    if not is_given:
        raise BadHosts(f"--host-option {text}: {spelt(field.name)} wants a value, as in {spelt(field.name)}=…")
    try:
        return _read(kind, value)
    except ValueError as error:
        raise BadHosts(f"--host-option {text}: {error}") from error


def _each(text: str | None, count: int, name: str, kind: type) -> list[Any]:
    """One value for each host."""
    if text is None:
        return [None] * count
    try:
        values = [_read(kind, part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise BadHosts(f"--{name} {text}: {error}") from error
    if len(values) != count:
        raise BadHosts(f"--{name} {text}: give a value for each host, {count} with commas between, or say --hosts {len(values)}")
    return values


def _type(field: "Field[Any]") -> type:
    found = [kind for kind in get_args(field.type) if kind is not NoneType] or [field.type]
    assert isinstance(found[0], type)
    return found[0]


def _read(kind: type, text: str) -> Any:
    """Raises ValueError, in words."""
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not isfinite(value):
        raise ValueError(f"{text!r} is not a {'whole number' if kind is int else 'number'}")
    return value


def _argument_type(kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return _read(kind, text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from error

    return convert


def _hosts(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_HOSTS):
        raise ArgumentTypeError(f"{text!r} is not a number of hosts: use 1 to {_MAX_HOSTS}")
    return int(text)


def _respelt(problem: str) -> str:
    """A dataclass's complaint in the words of the command line."""
    names: Sequence[str] = sorted((each.name for each in (*fields(Misbehaviour), *fields(HostOptions))), key=len, reverse=True)
    return " ".join(next((f"--{spelt(name)}{word[len(name) :]}" for name in names if word in (name, f"{name}:")), word) for word in problem.split(" "))
