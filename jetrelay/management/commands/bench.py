"""`manage.py bench NAME`: measure this installation's engines on this machine."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from jetrelay.bench.interface import options_of, summary
from jetrelay.bench.interruption import Interrupted, heeded
from jetrelay.bench.registry import BENCHMARKS


class Command(BaseCommand):
    help = "Benchmarks on the configured kinds of database and broker, in scratch ones of their own. See benchmarks/README.md."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        names = parser.add_subparsers(dest="name", required=True, metavar="NAME", parser_class=CommandParser)
        for name, measure in BENCHMARKS.items():
            benchmark = names.add_parser(name, help=summary(measure), description=summary(measure))
            for option in options_of(measure):
                flag, told = f"--{option.name.replace('_', '-')}", f"{option.help} (default: {option.default})"
                benchmark.add_argument(flag, type=option.kind, choices=option.choices, default=option.default, help=told)
            benchmark.add_argument("--json", action="store_true", help="print one JSON document and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        say = (lambda _: None) if options["json"] else self.stdout.write
        measure = BENCHMARKS[options["name"]]
        try:
            with heeded():
                figures = measure(say, **{option.name: options[option.name] for option in options_of(measure)})
        except Interrupted as told:
            self.stderr.write(f"{told}: stopped, and nothing is left behind.")
            sys.exit(128 + told.number)
        if options["json"]:
            self.stdout.write(json.dumps(figures))
            return
        tables = {key: value for key, value in figures.items() if isinstance(value, dict)}
        width = max(map(len, figures))
        for key, value in figures.items():
            if key not in tables:
                self.stdout.write(f"{key.ljust(width)}  {value}")
        for key, table in tables.items():
            self._write_table(key, table)

    def _write_table(self, name: str, table: dict[str, dict[str, Any]]) -> None:
        """A line for each of its rows, the columns as the first row has them."""
        columns = list(next(iter(table.values()), {}))
        width = max(map(len, [name, *table]))
        across = {column: max(8, len(column)) for column in columns}
        self.stdout.write("  ".join([f"\n{name.ljust(width)}", *(column.rjust(across[column]) for column in columns)]))
        for key, row in table.items():
            self.stdout.write("  ".join([key.ljust(width), *(str(row[column]).rjust(across[column]) for column in columns)]))
