"""The README's walk through the API, as it is printed: the receiver, the commands, and what they bring."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jetrelay.bench.processes import free_port
from tests.whole import ROOT, Program, engines, up

SECTION = re.search(r"^## Use the API\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def blocks(kind: str) -> list[str]:
    assert SECTION
    return re.findall(rf"```{kind}\n(.*?)```", SECTION[1], re.DOTALL)


@pytest.mark.whole
def test_it_leads_from_a_key_to_a_replay(tmp_path: Path) -> None:
    port, receivers = str(free_port()), str(free_port())
    (script,) = blocks("python")
    (tmp_path / "receiver.py").write_text(script.replace("3000", receivers))
    commands = "".join(blocks("sh")).replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("127.0.0.1:3000", f"127.0.0.1:{receivers}")
    # Whatever environment runs the tests stands for the one that `make` makes.
    commands = commands.replace(". .venv/bin/activate\n", f'python() {{ {sys.executable} "$@"; }}\n')
    # A person takes longer to type the next line than a delivery takes to arrive.
    waiting = f'wait_for() {{ until [ "$(grep -c order-1001 {tmp_path}/receiver.log)" -ge "$1" ]; do sleep 0.1; done; }}\n'
    commands = waiting + commands.replace(
        'curl -s "$API/deliveries?state',
        'wait_for 1; until curl -s "$API/deliveries?state=delivered" -H "$AUTH" | grep -q dlv_; do sleep 0.1; done\ncurl -s "$API/deliveries?state',
    )
    commands = commands.replace("curl -s $API/deliveries/$DELIVERY -H", "wait_for 2\ncurl -s $API/deliveries/$DELIVERY -H")
    with engines("embedded", tmp_path / "data") as env, Program(str(tmp_path / "receiver.py"), env=env, log=tmp_path / "receiver.log") as receiver:
        env |= {"JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8", "JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe", "PORT": port}
        with up(env, tmp_path / "up.log", "--port", port) as program:
            program.wait_for_output("Jetrelay is running")
            done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", commands], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
            assert '"passed":true' in done.stdout
            assert '"state":"active"' in done.stdout
            assert re.search(r'"secret":"whsec_', done.stdout)
            assert re.search(r'"status":"stored","deliveries":1', done.stdout)
            assert re.search(r'"state":"delivered".*"attempts":\[', done.stdout)
            arrived = re.findall(r"^(evt_\S+) .*order-1001", receiver.output, re.MULTILINE)
    assert len(arrived) == 2
    assert len(set(arrived)) == 1
