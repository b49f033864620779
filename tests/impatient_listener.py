"""`run_jetstream` whose patience is short: seconds where it would wait for minutes. Started as a process by tests."""

import os
import sys
from pathlib import Path

import django
from django.core.management import call_command

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    django.setup()

    from delivery import listener
    from delivery.sources.jetstream import connection, reader, seam

    listener.LEASE_S = 1.0
    listener.TICK_S = 0.1
    connection.SILENCE_S = 0.7
    connection.HANDSHAKE_TIMEOUT_S = 2.0
    reader._FIRST_WAIT_S = 0.05
    reader._LAST_WAIT_S = 0.4
    reader.STALL_S = reader.QUIET_S = 1.5
    reader._LAST_STALL_S = 3.0
    reader.SETTLED_S = 1.0
    seam.DELAY_S = 0.3
    seam._QUIET_S = 0.5
    call_command("run_jetstream")
