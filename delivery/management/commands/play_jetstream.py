"""`manage.py play_jetstream FILE…`: a Jetstream on this machine, for trials, tests and benchmarks."""

import asyncio
import errno
import signal
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from delivery.sources.jetstream import demo_events
from delivery.sources.jetstream.player import command_line
from delivery.sources.jetstream.player.dictionaries import Dictionaries, Dictionary
from delivery.sources.jetstream.player.host import Host
from delivery.sources.jetstream.player.log import DemoLog, FileLog, Log
from delivery.sources.jetstream.player.misbehaviour import HostOptions
from delivery.sources.jetstream.player.server import CannotListen, hosting

DEFAULT_PORT = 6008
DEMO_RATE = 5.0
DEMO_SEED = 1  # the same invented people after a restart
MAX_PORT = 65_535
MAX_RATE = 1_000_000.0  # above it, made-up events would share a microsecond


class Command(BaseCommand):
    help = (
        "Serve Jetstream events from NDJSON files at ws://HOST:PORT/subscribe (v1) and "
        "ws://HOST:PORT/xrpc/network.bsky.jetstream.subscribeEvents (v2). Lines of either wire are served byte for byte on it, "
        "and converted for the other. Lines that are no events are served too, to every client, filtered or not."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="NDJSON files of Jetstream events, played one after the other")
        parser.add_argument("--demo", action="store_true", help=f"make up events without end instead ({DEMO_RATE:g} a second unless --rate says otherwise)")
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to listen on; 0 picks a free one (default: %(default)s)")
        parser.add_argument("--rate", type=_rate, help="events a second, one pace for all clients (default: as fast as each client reads)")
        parser.add_argument("--loop", action="store_true", help="after the last event go on with fresh copies: later times, new numbers, new rev or time")
        parser.add_argument("--zstd-dictionary", type=Path, metavar="FILE", help="what v2 compresses with (default: one trained from the first events)")
        parser.add_argument("--v1-zstd-dictionary", type=Path, metavar="FILE", help="what v1 compresses with (default: v1 does not compress)")
        command_line.add_arguments(parser)

    def handle(self, *, files: list[Path], demo: bool, host: str, port: int, rate: float | None, loop: bool, **options: Any) -> None:
        if bool(files) == demo:
            raise CommandError("Name one or more NDJSON files to play, or use --demo for made-up events; not both.")
        hosts = _hosts(options, port)
        v1, v2 = _dictionary(options["v1_zstd_dictionary"]), _dictionary(options["zstd_dictionary"])
        if demo:
            if loop:
                raise CommandError("--loop goes with files: --demo has no end anyway.")
            rate = rate or DEMO_RATE
            log: Log = DemoLog(demo_events.Storyteller(DEMO_SEED).tell, rate)
            what = f"made-up events, {rate:g}/s"
        else:
            log = file_log = _read(files, loop)
            what = f"{len(file_log)} events"
        asyncio.run(self._play(log, what, hosts, host, port, rate, Dictionaries(log, v1, v2)))

    async def _play(self, log: Log, what: str, hosts: Sequence[HostOptions], address: str, port: int, rate: float | None, dictionaries: Dictionaries) -> None:
        """Serve until SIGINT or SIGTERM, which are the normal end."""
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            async with hosting(log, hosts, rate=rate, address=address, port=port, dictionaries=dictionaries) as serving:
                self.stdout.write(f"play_jetstream: listening on {_urls(serving)} ({what})")
                self.stdout.flush()
                await stopped.wait()
        except CannotListen as error:
            raise CommandError(_why_not_listening(error, address, error.port)) from error


def _urls(hosts: Sequence[Host]) -> str:
    return "; ".join(f"{host.v1} and {host.v2}" for host in hosts)


def _hosts(options: dict[str, Any], port: int) -> list[HostOptions]:
    try:
        hosts = command_line.read_hosts(options)
    except command_line.BadHosts as error:
        raise CommandError(str(error)) from error
    if port + len(hosts) - 1 > MAX_PORT:
        raise CommandError(f"{len(hosts)} hosts from port {port} on need ports above {MAX_PORT}: give a lower --port, or 0 for free ones.")
    return hosts


def _dictionary(path: Path | None) -> Dictionary | None:
    if path is None:
        return None
    try:
        return Dictionary.read(path)
    except OSError as error:
        raise CommandError(f"Cannot read {error.filename}: {error.strerror}. Give the path of a zstd dictionary.") from error
    except ValueError as error:
        raise CommandError(f"{path} is no zstd dictionary: {error}. Give one with an id, as zstd --train makes it.") from error


def _read(files: list[Path], loop: bool) -> FileLog:
    try:
        log = FileLog.read(files, loop)
    except OSError as error:
        raise CommandError(f"Cannot read {error.filename}: {error.strerror}. Give the path of a readable NDJSON file.") from error
    if not len(log):
        raise CommandError(f"There are no events in {', '.join(map(str, files))}: each line should be a Jetstream event.")
    return log


def _why_not_listening(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what listens there, or choose another with --port (0 picks a free one)."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs privileges: choose one above 1023 with --port."
    return f"Cannot listen on {host}, port {port}: {error.strerror or error}. Give an address of this machine with --host, such as 127.0.0.1."


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        raise ArgumentTypeError(f"{text!r} is not a port: use a number from 0 to 65535")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MAX_RATE:
        raise ArgumentTypeError(f"{text!r} is not a rate: use events a second, above 0 and up to {MAX_RATE:,.0f}")
    return rate
