"""One run of the doctor, with or without settings."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from jetrelay import __version__
from jetrelay.doctor import registry, report, running
from jetrelay.doctor.finding import Finding, Level

Say = Callable[[str], object]


def consult(say: Say, *, as_json: bool, unsettled: str = "") -> int:
    """Say everything that is found. `unsettled`: why the settings cannot be read. Returns the exit code: 1 if there is a problem."""
    findings = []
    for finding in _findings(unsettled):
        findings.append(finding)
        if not as_json:
            for line in report.lines(finding):
                say(line)
    if as_json:
        say(json.dumps(report.document(findings, __version__, datetime.now(UTC).isoformat(timespec="seconds"))))
    else:
        say(f"\nJetrelay {__version__}\n{report.summary(findings)}")
    return int(any(finding.level == Level.PROBLEM for finding in findings))


def _findings(unsettled: str) -> Iterator[Finding]:
    yield from running.examine(registry.checks(registry.WITHOUT_SETTINGS))
    if not unsettled:
        yield from running.examine(registry.checks(registry.WITH_SETTINGS))
        return
    advice = "Change it, and run doctor again: nothing else can be looked at before, and nothing of Jetrelay starts. The README's table has every setting."
    yield Finding(Level.PROBLEM, unsettled, advice, "settings")
