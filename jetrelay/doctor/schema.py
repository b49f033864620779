"""Whether the tables are those of this version."""

from collections.abc import Iterator

from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from jetrelay.doctor.finding import Finding, ok, problem
from jetrelay.doctor.registry import Check

# So many are named.
SHOWN = 5


def migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    graph, applied = executor.loader.graph, executor.loader.applied_migrations
    missing = [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(graph.leaf_nodes())]
    known = {config.label for config in apps.get_app_configs()}
    newer = sorted(f"{app}.{name}" for app, name in applied if app in known and (app, name) not in executor.loader.disk_migrations)
    if not applied:
        yield problem("the database has none of Jetrelay's tables", "Run `manage.py migrate`, and then `manage.py bootstrap`; `manage.py up` does both.")
    elif missing:
        yield problem(f"{len(missing)} not applied: {_some(missing)}", "Stop what runs, make a backup and run `manage.py migrate`.")
    if newer:
        advice = "A newer Jetrelay has been here. Start that version again, or restore the backup from before it."
        yield problem(f"{len(newer)} applied that this version does not know: {_some(newer)}", advice)
    if not missing and not newer:
        yield ok(f"all {len(applied)} are applied")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


CHECKS = (Check("migrations", migrations, needs=("database",)),)
