"""docker-compose.yml and the Dockerfile, without Docker: valid, complete, and in step with the commands that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from django.conf import settings
from django.core.management import get_commands

from jetrelay.management.commands import up

ROOT = Path(settings.BASE_DIR)
TEXT = (ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
OWN = {"migrate", "web", "listener", "worker", "beat"}
REQUIRED = {"SECRET_KEY", "JETRELAY_ENCRYPTION_KEYS", "POSTGRES_PASSWORD"}


def filled_in(text: str) -> str:
    """The text as Compose reads it: with required variables set, and the others left to their defaults."""
    return VARIABLE.sub(lambda found: (found[3] or "") if found[2] == "-" else "abc123", text)


SERVICES = yaml.safe_load(filled_in(TEXT))["services"]


def test_it_follows_the_compose_specification() -> None:
    # As JSON, because this judge does not know YAML's merge keys.
    compose = PyCompose.from_json(json.dumps(yaml.safe_load(filled_in(TEXT))))
    compose.validate()
    compose.to_spec()


def test_it_has_every_part() -> None:
    assert set(SERVICES) == OWN | {"postgres", "redis"}


def test_secrets_are_required_and_the_message_says_where_to_put_them() -> None:
    found = {name: message for name, kind, message in VARIABLE.findall(TEXT) if kind == "?"}
    assert set(found) == REQUIRED
    for name, message in found.items():
        assert message.startswith(f"put {name} into .env")


def test_every_variable_is_one_that_the_settings_read() -> None:
    source = (ROOT / "jetrelay" / "settings.py").read_text()
    for name in SERVICES["web"]["environment"]:
        assert f'"{name}"' in source, name


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_part_is_the_same_image_with_the_same_environment(name: str) -> None:
    service = SERVICES[name]
    assert (service["image"], service["build"]) == ("jetrelay", ".")
    assert service["environment"] == SERVICES["web"]["environment"]
    assert service["stop_grace_period"] == "30s"


@pytest.mark.parametrize("name", sorted(OWN - {"migrate"}))
def test_every_part_waits_for_the_database_the_broker_and_the_migrations(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert {part: wish["condition"] for part, wish in SERVICES[name]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_what_is_waited_for_can_become_healthy() -> None:
    for name in ("postgres", "redis", "web"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD", name
    assert SERVICES["migrate"]["restart"] == "no"
    assert {part: wish["condition"] for part, wish in SERVICES["migrate"]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
    }


def test_parts_that_answer_no_request_have_no_healthcheck() -> None:
    for name in OWN - {"web"}:
        assert SERVICES[name]["healthcheck"] == {"disable": True}, name


def test_the_commands_exist() -> None:
    # Whole words, so that one inside `sh -c "… && …"` counts and a word such as `manage.pyc` does not.
    lines = [" ".join(service["command"]) for service in SERVICES.values() if "command" in service]
    named = set(re.findall(r"\bmanage\.py (\w+)", "\n".join(lines)))
    assert named == {"migrate", "bootstrap", "run_jetstream"}
    assert named <= set(get_commands())


def test_worker_and_beat_run_as_they_do_under_up() -> None:
    under_up = {child.name: list(child.argv[1:]) for child in up.children({}, "0.0.0.0", 8000, None)}
    for name in ("worker", "beat"):
        assert SERVICES[name]["command"][1:] == under_up[name], name


def test_the_web_part_runs_the_same_application_as_under_up() -> None:
    command = SERVICES["web"]["command"]
    under_up = up.granian("0.0.0.0", 8000)
    assert command[:3] == ["python", *under_up[1:3]]
    assert command[-1] == under_up[-1]
    assert {word for word in command if word.startswith("--")} <= {word for word in under_up if word.startswith("--")}


def test_named_volumes_are_declared() -> None:
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert named == set(yaml.safe_load(filled_in(TEXT))["volumes"])


def test_the_site_is_published_to_this_machine_only() -> None:
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8000:8000"]
    for name in set(SERVICES) - {"web"}:
        assert "ports" not in SERVICES[name], name


def test_the_image_is_small_runs_as_nobody_in_particular_and_says_whether_it_is_well() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", dockerfile, re.M) == ["python:3.12-slim", "python:3.12-slim"]
    assert re.search(r"^USER jetrelay$", dockerfile, re.M)
    assert re.search(r"^HEALTHCHECK .*\\\n .*/health", dockerfile, re.M)


def test_the_image_holds_everything_that_the_settings_name() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {"delivery", "jetrelay", "static", "subscriptions", "templates", "manage.py", "requirements.txt"}
    assert all((ROOT / name).exists() for name in allowed)
