"""docker-compose.yml, without Docker: valid, complete, and in step with the commands that exist."""

import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from jetrelay.management.commands import up
from tests.test_docs import variables_of_the_table

ROOT = Path(settings.BASE_DIR)
TEXT = (ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
OWN = {"migrate", "web", "listener", "worker", "beat"}
MONITORING = {"prometheus", "grafana"}
REQUIRED = {"SECRET_KEY", "JETRELAY_ENCRYPTION_KEYS", "POSTGRES_PASSWORD"}
# Their values are in the image: where its files are, and what it listens on.
OF_THE_IMAGE = {"JETRELAY_DATA_DIR", "JETRELAY_HOST"}


def filled_in(text: str) -> str:
    """The text as Compose reads it: with required variables set, and the others left to their defaults."""
    return VARIABLE.sub(lambda found: (found[3] or "") if found[2] == "-" else "abc123", text)


COMPOSE = yaml.safe_load(filled_in(TEXT))
SERVICES = COMPOSE["services"]


def test_it_follows_the_compose_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)
    # … which looks at what it is given: no such key, and no such word, is in the specification.
    for wrong in ({"restart": "unless-stopped", "replicas": 2}, {"healthcheck": {"disabled": True}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"services": {"worker": {"image": "jetrelay", **wrong}}}, schema)


def test_it_has_every_part() -> None:
    assert set(SERVICES) == OWN | {"postgres", "redis"} | MONITORING
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]} == MONITORING
    assert {name: service["deploy"]["replicas"] for name, service in SERVICES.items() if "deploy" in service} == {"listener": 2, "worker": 2}


def test_secrets_are_required_and_the_message_says_where_to_put_them() -> None:
    found = {name: message for name, kind, message in VARIABLE.findall(TEXT) if kind == "?"}
    assert set(found) == REQUIRED
    for name, message in found.items():
        assert message.startswith(f"put {name} into .env")


def test_every_variable_is_one_that_the_settings_read() -> None:
    source = (ROOT / "jetrelay" / "settings.py").read_text()
    for name in SERVICES["web"]["environment"]:
        assert f'"{name}"' in source, name


def test_every_variable_of_the_table_reaches_the_containers() -> None:
    assert set(variables_of_the_table()) - set(SERVICES["web"]["environment"]) == OF_THE_IMAGE


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
    for name in {"postgres", "redis", "web"} | MONITORING:
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
    lines = [" ".join(SERVICES[name]["command"]) for name in OWN]
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


def mounts() -> list[tuple[str, str]]:
    """(what, where) of everything that is mounted."""
    return [tuple(volume.split(":")[:2]) for service in SERVICES.values() for volume in service.get("volumes", [])]


def test_named_volumes_are_declared() -> None:
    assert {what for what, _ in mounts() if not what.startswith(".")} == set(COMPOSE["volumes"])


def test_files_that_are_mounted_exist_and_are_read_only() -> None:
    ours = [what for what, _ in mounts() if what.startswith(".")]
    assert len(ours) == 4
    assert [what for what in ours if not (ROOT / what).exists()] == []
    assert TEXT.count(":ro\n") == len(ours)


def test_prometheus_and_grafana_find_what_is_mounted() -> None:
    deploy, inside = ROOT / "deploy", {where for _, where in mounts()}
    prometheus = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert set(prometheus["rule_files"]) <= inside
    (job,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "jetrelay")
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["web:8000"]}]
    assert SERVICES["web"]["environment"]["JETRELAY_ALLOWED_HOSTS"].startswith("web,")
    assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_token"}
    assert COMPOSE["secrets"]["metrics_token"] == {"environment": "JETRELAY_METRICS_TOKEN"}
    (source,) = yaml.safe_load((deploy / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((deploy / "grafana" / "provisioning" / "dashboards" / "jetrelay.yml").read_text())["providers"]
    assert provider["options"]["path"] in inside
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"


def test_secrets_can_be_read_by_programs_that_are_not_root() -> None:
    assert {name: service["secrets"] for name, service in SERVICES.items() if "secrets" in service} == {
        "prometheus": [{"source": "metrics_token", "mode": 0o444}],
        "grafana": [{"source": "grafana_password", "mode": 0o444}],
    }
    # Compose refuses to hand a secret of the environment to a file system that is read-only.
    assert not any(service.get("read_only") for service in SERVICES.values() if "secrets" in service)


def test_the_site_is_published_to_this_machine_only() -> None:
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8000:8000"]
    for name in set(SERVICES) - {"web"}:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", [])), name
        assert name in MONITORING or "ports" not in SERVICES[name], name


def test_no_part_may_become_more_than_it_is_nor_fill_the_disk_with_its_log() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
    for name in OWN:
        assert (SERVICES[name]["read_only"], SERVICES[name]["tmpfs"], SERVICES[name]["cap_drop"]) == (True, "/tmp", ["ALL"]), name


def test_images_of_others_are_pinned() -> None:
    for name in set(SERVICES) - OWN:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+(\.\d+)?", SERVICES[name]["image"]), name
