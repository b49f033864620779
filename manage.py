#!/usr/bin/env python
"""Django's command-line entry point for Jetrelay."""

import os
import sys

# They write what others are to read: code and documents.
FOR_OTHERS = ("collectstatic", "makemigrations", "spectacular")


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] not in FOR_OTHERS:
        # Whatever else a command writes, a dump above all, may hold what lets somebody in.
        os.umask(0o077)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    try:
        import django  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("jetrelay: Django is not installed for this Python. Run `make install`, then use .venv/bin/python manage.py ...")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import Error as DatabaseError

    try:
        try:
            execute_from_command_line(sys.argv)
        finally:
            # Here, where it can be told in words that nobody takes it.
            sys.stdout.flush()
    except ImproperlyConfigured as error:
        if sys.argv[1:2] == ["doctor"]:
            from jetrelay.doctor.consulting import consult

            sys.exit(consult(print, as_json="--json" in sys.argv, unsettled=str(error)))
        # A wrong setting is the operator's to mend: name it, without a traceback in the way.
        sys.exit(f"jetrelay: {error}")
    except DatabaseError as error:
        from jetrelay.away import advice

        if not (words := advice(error)):
            raise
        sys.exit(f"jetrelay: {words}")
    except OSError as error:
        from jetrelay.away import disk_advice

        if not (words := disk_advice(error)) and not isinstance(error, BrokenPipeError):
            raise
        # What is left of the output cannot be written either, and must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        # Whoever stopped reading (`| head`) has what they want.
        sys.exit(f"jetrelay: {words}" if words else 1)


if __name__ == "__main__":
    main()
