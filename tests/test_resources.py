"""Every bounded thing of every process stands in docs/resources.md, with who may take how much of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "resources.md"
# What holds something back, or keeps something: semaphores, pools, queues, executors, memories, threads.
KINDS = frozenset(
    {
        *("Semaphore", "BoundedSemaphore", "ThreadPoolExecutor", "ProcessPoolExecutor", "Pool"),
        *("Queue", "SimpleQueue", "LifoQueue", "PriorityQueue", "deque"),
        *("lru_cache", "cache", "Shares", "GuardedShares", "FairThreads", "Remembered", "LocMemCache"),
        *("Thread", "Process"),
    }
)
# Commands that people start and that end by themselves, and what makes up events for them.
ALONE = ("jetrelay/bench/", "jetrelay/doctor/", "delivery/sources/jetstream/player/", "migrations/", "management/")


def sources() -> list[Path]:
    files = [path for package in ("jetrelay", "delivery", "subscriptions") for path in (ROOT / package).rglob("*.py")]
    return [path for path in files if not any(part in path.as_posix() for part in ALONE)]


class Finder(ast.NodeVisitor):
    """What is made for longer than a call, by the name under which it is kept; threads by their own names."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            if _kind(decorator) or (isinstance(decorator, ast.Call) and _kind(decorator.func)):
                self.found.add(node.name)
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assigned(node.targets, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._assigned([node.target], node.value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if _kind(node.func) in ("Thread", "Process"):
            self.found.add(next(_named(word.value) for word in node.keywords if word.arg == "name"))
        self.generic_visit(node)

    def _assigned(self, targets: list[ast.expr], value: ast.expr | None) -> None:
        if value is None or not any(_makes(each) for each in ast.walk(value)):
            return
        for target in [inner for outer in targets for inner in ast.walk(outer)]:
            # Locals end with their call.
            if isinstance(target, ast.Attribute):
                self.found.add(target.attr)
            elif isinstance(target, ast.Name) and not self._depth:
                self.found.add(target.id)


def _kind(function: ast.expr) -> str | None:
    if isinstance(function, ast.Subscript):
        function = function.value
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    return name if name in KINDS else None


def _makes(node: ast.AST) -> bool:
    """A call, or a dataclass's `field(default_factory=deque)`."""
    if isinstance(node, ast.keyword) and node.arg == "default_factory":
        return bool(_kind(node.value))
    return isinstance(node, ast.Call) and _kind(node.func) not in (None, "Thread", "Process")


def _named(value: ast.expr) -> str:
    """The name of a thread, up to what differs from one to the next."""
    if isinstance(value, ast.Name):
        return value.id
    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
    return str(parts[0].value).strip(" ,") if isinstance(parts[0], ast.Constant) else ""


def found_in(source: str) -> set[str]:
    finder = Finder()
    finder.visit(ast.parse(source))
    return finder.found


def in_code() -> Iterator[tuple[str, str]]:
    for path in sources():
        for name in found_in(path.read_text()):
            yield path.relative_to(ROOT).as_posix(), name


def in_table() -> list[tuple[str, str]]:
    """`file` `name` of each row's third cell."""
    rows = [line.split("|") for line in TABLE.read_text().splitlines() if line.startswith("| ") and "`" in line]
    return [(words[0], name) for row in rows for words in [re.findall(r"`([^`]+)`", row[3])] if words for name in words[1:]]


def test_every_bounded_thing_has_a_row() -> None:
    missing = sorted(set(in_code()) - set(in_table()))
    assert not missing, f"Say in docs/resources.md who may take how much of: {missing}"


def test_every_row_is_of_something_that_is_there() -> None:
    lost = [(file, name) for file, name in in_table() if not re.search(rf"\b{re.escape(name)}\b", (ROOT / file).read_text())]
    assert not lost


def test_no_row_is_twice() -> None:
    rows = in_table()
    assert len(rows) == len(set(rows)) > 40


def test_every_row_says_how_much_there_is_and_who_may_have_it() -> None:
    for line in TABLE.read_text().splitlines():
        if line.startswith("| ") and "`" in line:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 5, line
            assert all(cells), line


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("slots = threading.BoundedSemaphore(2)", {"slots"}),
        ("slots: Semaphore = Semaphore(2)", {"slots"}),
        ("class A:\n    def __init__(self):\n        self._pool = ThreadPoolExecutor(4)", {"_pool"}),
        ("class A:\n    def __init__(self):\n        self._waiting: deque[int] = deque[int]()", {"_waiting"}),
        ("@dataclass\nclass A:\n    waiting: deque[int] = field(default_factory=deque)", {"waiting"}),
        ("@lru_cache(maxsize=9)\ndef known(x): ...", {"known"}),
        ("@cache\ndef known(x): ...", {"known"}),
        ("a, b = Queue(), 3", {"a", "b"}),
        ("def run():\n    threading.Thread(target=run, name=f'lane {4}').start()", {"lane"}),
        ("def run():\n    mine = deque()\n    return len(mine)", set()),
        ("names = {}", set()),
    ],
)  # fmt: skip
def test_it_finds_what_is_bounded(source: str, names: set[str]) -> None:
    assert found_in(source) == names
