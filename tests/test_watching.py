"""What watches Jetrelay names what there is: the dashboard, the alert rules and the list of metrics, against a real scrape."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from django.test import Client
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from jetrelay.metrics.collector import shared
from tests.test_metrics import make_everything
from tests.whole import ROOT

pytestmark = pytest.mark.django_db

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "jetrelay.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
LIST = ROOT / "docs" / "metrics.md"

# What Prometheus knows of itself about every series, and what PromQL says besides names.
OF_PROMETHEUS = {"job", "instance", "le"}
KEYWORDS = {
    *("and", "or", "unless", "by", "on", "ignoring", "without", "group_left", "group_right", "bool", "offset"),
    *("sum", "min", "max", "avg", "count", "topk", "rate", "increase", "absent", "histogram_quantile", "label_values"),
}
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.fixture
def families() -> list[Any]:
    make_everything()
    shared.forget()
    answer = Client(headers={"Accept": "application/openmetrics-text; version=1.0.0"}).get("/metrics").content.decode()
    shared.forget()
    return list(text_string_to_metric_families(answer))


@pytest.fixture
def series(families: list[Any]) -> dict[str, set[str]]:
    """The labels of every series, by its name as a query writes it."""
    found: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def queries() -> list[str]:
    """Every query of the dashboard and of the rules."""
    variables = [variable["definition"] for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]
    return [*variables, *(target["expr"] for panel in panels() for target in panel["targets"]), *(rule["expr"] for rule in rules())]


def wrong_of(query: str, series: dict[str, set[str]]) -> list[str]:
    """What a query names that is not there."""
    wrong = []
    query = query.replace("$__rate_interval", "5m")
    for name, selector in re.findall(r"([a-z_]\w+)\s*\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in series.get(name, set()) | OF_PROMETHEUS:
                wrong.append(f"{name} has no label {label}")
    bare = re.sub(r'"[^"]*"', "", re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", query))
    named = set(re.findall(r"\bjetrelay_\w+", bare))
    wrong += [f"there is no {name}" for name in named if name not in series]
    there = set[str]().union(*(series.get(name, set()) for name in named)) | OF_PROMETHEUS
    for labels in re.findall(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)", bare):
        wrong += [f"no series in it has the label {label}" for label in re.findall(r"\w+", labels) if label not in there]
    if variable := re.match(r"label_values\((\w+), (\w+)\)", query):
        wrong += [] if variable[2] in series.get(variable[1], set()) else [f"{variable[1]} has no label {variable[2]}"]
    words = re.sub(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)|label_values\(\w+, \w+\)", "", bare)
    wrong += [f"what is {word}?" for word in re.findall(r"\b[a-z_]+\b", words) if word not in KEYWORDS and word not in series]
    if query.count("(") != query.count(")"):
        wrong.append("its brackets do not match")
    return wrong


def test_every_query_names_what_there_is(series: dict[str, set[str]]) -> None:
    assert len(queries()) > 50
    assert {query: wrong for query in queries() if (wrong := wrong_of(query, series))} == {}


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("jetrelay_nothing > 0", "there is no jetrelay_nothing"),
        ('jetrelay_breakers{sate="open"}', "jetrelay_breakers has no label sate"),
        ("sum by (sate) (jetrelay_breakers)", "no series in it has the label sate"),
        ("label_values(jetrelay_breakers, endpoint)", "jetrelay_breakers has no label endpoint"),
        ("raet(jetrelay_attempts_total[5m])", "what is raet?"),
        ("up == 0", "what is up?"),
        ("rate(jetrelay_attempts_total[5m]", "its brackets do not match"),
    ],
)
def test_it_would_see_a_query_that_does_not(series: dict[str, set[str]], query: str, word: str) -> None:
    assert word in wrong_of(query, series)


def test_every_family_is_watched_or_explained(series: dict[str, set[str]]) -> None:
    """What stands on no panel and in no rule is listed here, with the reason."""
    detail = {
        "jetrelay_events_received_total",  # the sum of what became of them
        "jetrelay_source_events_received_total",
        "jetrelay_source_events_total",
        "jetrelay_source_info",
        "jetrelay_host_received_bytes_total",
        "jetrelay_endpoint_oldest_due_seconds",
        "jetrelay_endpoint_deliveries_cancelled_total",
        "jetrelay_endpoints",
        "jetrelay_endpoints_unnamed",
        "jetrelay_counts_limited",
        "jetrelay_attempt_duration_seconds_count",
        "jetrelay_attempt_duration_seconds_sum",
    }
    named = set(re.findall(r"\bjetrelay_\w+", "\n".join(queries())))
    assert set(series) - named == detail


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    whole = dashboard()
    assert (whole["uid"], whole["title"], whole["schemaVersion"]) == ("jetrelay", "Jetrelay", 39)
    assert "id" not in whole
    assert [variable["name"] for variable in whole["templating"]["list"]] == ["datasource", "tenant"]
    ids = [panel["id"] for panel in whole["panels"]]
    assert len(ids) == len(set(ids)) > 30
    taken: set[tuple[int, int]] = set()
    for panel in whole["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["type"] in ("stat", "timeseries", "table"), panel["title"]
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
        # The data source is the reader's choice, everywhere.
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [DATA_SOURCE] * (1 + len(panel["targets"]))


def test_its_legends_are_labels_that_there_are(series: dict[str, set[str]]) -> None:
    for panel in panels():
        for target in panel["targets"]:
            there = set[str]().union(*(series[name] for name in re.findall(r"\bjetrelay_\w+", target["expr"])))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= there, panel["title"]


def test_every_alert_says_what_to_do(series: dict[str, set[str]]) -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 10
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
        for text in rule["annotations"].values():
            assert text.strip().endswith((".", ").")), rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        there = set[str]().union(*(series[name] for name in re.findall(r"\bjetrelay_\w+", rule["expr"])))
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= there, rule["alert"]


def test_promtool_accepts_rules_and_metrics() -> None:
    """Where there is one."""
    make_everything()
    shared.forget()
    scraped = Client().get("/metrics").content
    shared.forget()
    if promtool := shutil.which("promtool"):
        assert subprocess.run([promtool, "check", "rules", str(ALERTS)], check=False, capture_output=True).returncode == 0
        checked = subprocess.run([promtool, "check", "metrics"], input=scraped, check=False, capture_output=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_document_lists_every_series(families: list[Any]) -> None:
    listed = re.findall(r"^\| `(jetrelay_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", LIST.read_text(), re.MULTILINE)
    assert listed == [row(family) for family in families]


def row(family: Any) -> tuple[str, ...]:
    """A family as the document has it: its name as queries write it, but for a histogram's parts."""
    name = f"{family.name}{ {'counter': '_total', 'info': '_info'}.get(family.type, '') }"
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    return name, family.type, ", ".join(f"`{label}`" for label in sorted(labels)), family.documentation
