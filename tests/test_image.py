"""The Dockerfile, without Docker: what it copies exists, and who runs it may change nothing."""

import re
import shlex

import jetrelay
from tests.whole import ROOT

# Lines that end in a backslash go on.
LINES = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text()).splitlines()
INSTRUCTIONS = [(found[1], found[2]) for line in LINES if (found := re.match(r"([A-Z]+) (.+)", line))]
BUILD, FINAL = (
    INSTRUCTIONS[start:end]
    for starts in [[number for number, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM"]]
    for start, end in zip(starts, [*starts[1:], None], strict=True)
)
ALLOWED = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


def of(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def test_it_stands_on_a_python_that_we_support() -> None:
    (default,) = of(INSTRUCTIONS[:1], "ARG")
    supported = re.search(r"Installs on Python (.+?) \(", (ROOT / "requirements.txt").read_text())
    assert supported
    assert default.removeprefix("PYTHON_VERSION=") in re.findall(r"\d+\.\d+", supported[1])
    assert [of(stage, "FROM")[0].split(" ")[0] for stage in (BUILD, FINAL)] == ["python:${PYTHON_VERSION}-slim-bookworm"] * 2


def test_it_installs_what_is_locked_and_compiles_nothing() -> None:
    (install,) = (line for line in of(BUILD, "RUN") if " install " in line)
    words = shlex.split(install)
    assert {"--require-hashes", "--only-binary"} <= set(words)
    assert words[-2:] == ["--requirement", "/requirements.lock"]
    assert not any("apt-get" in line or "pip" in line for line in of(FINAL, "RUN"))


def test_what_it_copies_exists() -> None:
    sources = [line.split()[0] for line in of(BUILD, "COPY")]
    assert sources == ["requirements.lock", "."]
    assert "requirements.lock" in ALLOWED
    assert [line.split()[:2] for line in of(FINAL, "COPY")] == [["--from=build", "/opt/venv"], ["--from=build", "/app"]]


def test_it_holds_everything_that_the_settings_name() -> None:
    assert {"delivery", "jetrelay", "static", "subscriptions", "templates", "manage.py", "requirements.lock", "LICENSE"} == ALLOWED
    assert [name for name in ALLOWED if not (ROOT / name).exists()] == []


def test_nobody_in_particular_runs_it() -> None:
    (user,) = of(FINAL, "USER")
    assert re.fullmatch(r"([1-9]\d*):\1", user)
    assert FINAL.index(("USER", user)) > max(FINAL.index(("COPY", line)) for line in of(FINAL, "COPY"))
    assert f"--uid {user.split(':')[0]} " in of(FINAL, "RUN")[0]


def test_its_label_says_which_version_it_is() -> None:
    assert of(FINAL, "ARG") == [f"VERSION={jetrelay.__version__}"]
    assert 'org.opencontainers.image.version="${VERSION}"' in of(FINAL, "LABEL")[0]


def test_it_says_whether_it_is_well() -> None:
    """By the program that knows where it listens: `test_ourselves.py` runs it."""
    (check,) = of(FINAL, "HEALTHCHECK")
    assert '"-m", "subscriptions.ourselves"' in check
