"""The documents: every command, target, variable, URL and file that they name exists, and none is left out."""

import re
import shlex
from collections.abc import Iterator

import pytest
from celery import current_app
from django.conf import settings
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError
from django.urls import Resolver404, resolve

import jetrelay
from tests.whole import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
README = ROOT / "README.md"
# Variables that are Jetrelay's own; others named in a document belong to containers, tests or the system.
OWN = re.compile(r"\b(?:(?:JETRELAY|WEBHOOK|JETSTREAM)_[A-Z_]+[A-Z]|DATABASE_URL|BROKER_URL|SECRET_KEY|PORT)\b")
READS = re.compile(r"""(?:env\.(?:text|site|flag|choice|integer|items|database|broker|one)\(|environ(?:\.get\(|\[))\s*["']([A-Z][A-Z_]+)["']""")


def everything(pattern: str, *, flags: int = 0) -> list[tuple[str, str]]:
    """(document, match) for every match in the documents, each once."""
    found = [(path.name, match) for path in DOCUMENTS for match in re.findall(pattern, path.read_text(), flags)]
    return list(dict.fromkeys(found))


def shell_lines() -> Iterator[str]:
    """Every line that a document tells its reader to type."""
    for path in DOCUMENTS:
        for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", path.read_text(), re.DOTALL):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                if line := line.removeprefix("$ ").strip():
                    yield line


def variables_of_the_table() -> list[str]:
    return re.findall(r"^\| `([A-Z][A-Z_]+)` \|", README.read_text(), re.MULTILINE)


def variables_that_are_read() -> set[str]:
    sources = [path for package in ("jetrelay", "delivery", "subscriptions") for path in (ROOT / package).rglob("*.py")]
    found = {name for path in sources for name in READS.findall(path.read_text())}
    return {name for name in found if OWN.fullmatch(name)}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


# --- Commands ----------------------------------------------------------------------------------------------------------


def test_it_names_commands_that_exist() -> None:
    named = everything(r"manage\.py ([a-z_]+)")
    assert ("README.md", "migrate") in named
    assert [(document, name) for document, name in named if name not in get_commands()] == []


@pytest.mark.parametrize("line", [line for line in shell_lines() if "manage.py" in line])
def test_it_shows_commands_that_parse(line: str) -> None:
    # One may stand inside of another command: "$(python manage.py …)".
    (command,) = re.findall(r'manage\.py ([^)"]+)', line)
    name, *arguments = shlex.split(command, comments=True)
    parser = load_command_class(str(get_commands()[name]), name).create_parser("manage.py", name)
    try:
        parser.parse_args(arguments)
    except CommandError as error:
        pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("line", [line for line in shell_lines() if " worker " in line])
def test_it_shows_workers_that_take_every_queue(line: str) -> None:
    words = shlex.split(line)
    queues = set(words[words.index("-Q") + 1].split(","))
    routed = {route["queue"] for route in current_app.conf.task_routes.values()} | {current_app.conf.task_default_queue}
    assert queues == routed
    assert words[words.index("-P") + 1] == "threads"


def test_it_names_make_targets_that_exist() -> None:
    # "you need Python and make" is no target; `make run` and a line of a shell block are.
    named = everything(r"`make ([a-z][a-z-]*)") + [("", name) for line in shell_lines() for name in re.findall(r"\bmake ([a-z][a-z-]*)", line)]
    assert {"run", "test"} <= {name for _, name in named}
    assert [(document, name) for document, name in named if name not in targets()] == []


def test_it_names_every_target_that_a_newcomer_needs() -> None:
    named = {name for _, name in everything(r"make ([a-z][a-z-]*)")}
    assert {"run", "demo", "test", "lint"} <= named & targets()


# --- Variables ---------------------------------------------------------------------------------------------------------


def test_its_table_has_every_variable_that_is_read() -> None:
    assert variables_that_are_read() - set(variables_of_the_table()) == set()


def test_its_table_has_no_variable_that_nobody_reads() -> None:
    table = variables_of_the_table()
    assert set(table) - variables_that_are_read() == set()
    assert len(table) == len(set(table))


def test_it_names_variables_that_exist() -> None:
    # The last group is read by the tests alone.
    known = variables_that_are_read() | {"JETRELAY_TESTS_MUST_NOT_SKIP"}
    named = everything(OWN.pattern)
    assert len(named) > 10
    assert [(document, name) for document, name in named if name not in known] == []


@pytest.mark.parametrize(
    ("variable", "setting"),
    [("PORT", "8000"), ("JETRELAY_LANES", "8"), ("JETSTREAM_KINDS", "commit")],
)
def test_its_table_has_the_defaults_of_the_settings(variable: str, setting: str) -> None:
    (default,) = re.findall(rf"^\| `{variable}` \| `([^`]+)` \|", README.read_text(), re.MULTILINE)
    assert default == setting
    assert re.search(rf'"{variable}".*?{re.escape(setting)}', (ROOT / "jetrelay" / "settings.py").read_text())


def test_its_table_has_the_default_hosts() -> None:
    (default,) = re.findall(r"^\| `JETSTREAM_HOSTS` \| ([^|]+) \|", README.read_text(), re.MULTILINE)
    assert re.findall(r"`([^`]+)`", default) == settings.JETSTREAM_HOSTS


# --- URLs and files ----------------------------------------------------------------------------------------------------


def paths_of_the_site() -> list[tuple[str, str]]:
    """Paths in a table's first column, and paths below the address that `make run` listens on."""
    found = everything(r"^\| `(/[^`]*)` \|", flags=re.MULTILINE) + everything(r"https?://(?:127\.0\.0\.1|localhost):8000(/[^\s>)`\"']*)")
    return [(document, re.sub(r"<[a-z_]+>", "x", path)) for document, path in found]


def test_it_names_urls_that_exist() -> None:
    named = paths_of_the_site()
    assert ("README.md", "/health") in named
    missing = []
    for document, path in named:
        try:
            resolve(path)
        except Resolver404:
            missing.append((document, path))
    assert missing == []


def test_it_names_files_that_exist() -> None:
    ours = r"(?:delivery|jetrelay|subscriptions|templates|static|tests|docs|deploy|benchmarks)"
    links = [(path, target) for path in DOCUMENTS for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", path.read_text())]
    code = [(ROOT / "x", target) for _, target in everything(rf"`({ours}/[^\s`*…]*)`")]
    assert links
    assert [f"{path.name}: {target}" for path, target in links + code if not (path.parent / target).exists()] == []


def test_it_shows_the_version_that_this_is() -> None:
    shown = {version for _, version in everything(r"Jetrelay/(\d+\.\d+\.\d+)")}
    assert shown <= {jetrelay.__version__}


def test_it_shows_examples_that_are_python() -> None:
    examples = [block for path in DOCUMENTS for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)]
    assert examples
    for example in examples:
        compile(example, "README.md", "exec")
