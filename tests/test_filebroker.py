"""The file-system broker: messages arrive once, whole and in order, whoever sends and takes them."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.simple import SimpleQueue

from jetrelay import filebroker
from tests.whole import ROOT

PATIENCE_S = 60

# Takes until the queue is empty and nobody writes any more; prints what it got.
TAKE = """
import json, sys
from pathlib import Path
from queue import Empty
from tests.test_filebroker import queue
got = []
with queue(Path(sys.argv[1])) as messages:
    while True:
        written = Path(sys.argv[2]).exists()
        try:
            message = messages.get(timeout=0.1)
        except Empty:
            if written:
                break
            continue
        message.ack()
        got.append(message.payload)
print(json.dumps(got))
"""
PUT = """
import sys
from pathlib import Path
from tests.test_filebroker import queue
with queue(Path(sys.argv[1])) as messages:
    for number in range(int(sys.argv[3])):
        messages.put({"from": sys.argv[2], "number": number, "filling": "x" * 20_000})
"""


@contextmanager
def queue(folder: Path, name: str = "lanes") -> Iterator[SimpleQueue]:
    """A queue of the broker in this folder, as Celery would have it."""
    filebroker.register()
    for part in ("messages", "taken"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {"data_folder_in": str(folder / "messages"), "data_folder_out": str(folder / "messages"), "processed_folder": str(folder / "taken")}
    with Connection("filesystem://", transport_options=options | {"polling_interval": 0.01}) as connection:
        found = connection.SimpleQueue(name)
        try:
            yield found
        finally:
            found.close()


def take(messages: SimpleQueue) -> Any:
    message = messages.get(timeout=PATIENCE_S)
    message.ack()
    return message.payload


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: "subprocess.Popen[str]") -> str:
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    return out


def test_it_hands_over_messages_in_order(tmp_path: Path) -> None:
    with queue(tmp_path) as messages:
        for number in range(20):
            messages.put(number)
        assert [take(messages) for _ in range(20)] == list(range(20))
        with pytest.raises(Empty):
            messages.get(block=False)


def test_it_keeps_queues_apart(tmp_path: Path) -> None:
    with queue(tmp_path) as lanes, queue(tmp_path, "default") as default, queue(tmp_path, "more.lanes") as similar:
        default.put("for default")
        similar.put("for a queue whose name ends alike")
        with pytest.raises(Empty):
            lanes.get(block=False)
        assert take(default) == "for default"
        assert take(similar) == "for a queue whose name ends alike"


def test_it_keeps_messages_for_a_reader_that_comes_later(tmp_path: Path) -> None:
    with queue(tmp_path) as messages:
        messages.put("hello")
    with queue(tmp_path) as messages:
        assert take(messages) == "hello"


def test_it_leaves_no_files_behind(tmp_path: Path) -> None:
    with queue(tmp_path) as messages:
        for number in range(10):
            messages.put(number)
            take(messages)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_it_is_not_disturbed_by_a_writer_that_died(tmp_path: Path) -> None:
    with queue(tmp_path) as messages:
        (tmp_path / "messages" / ".0_half.lanes.msg.new").write_text('{"body":')
        messages.put("whole")
        assert take(messages) == "whole"


def test_it_hands_every_message_to_one_process(tmp_path: Path) -> None:
    all_written = tmp_path / "all-written"
    takers = [start(TAKE, tmp_path, all_written) for _ in range(3)]
    writers = [start(PUT, tmp_path, name, 200) for name in "ab"]
    for writer in writers:
        output(writer)
    all_written.touch()
    taken = [json.loads(output(taker)) for taker in takers]
    counts = Counter((message["from"], message["number"]) for messages in taken for message in messages)
    assert counts == {(name, number): 1 for name in "ab" for number in range(200)}
    assert all(message["filling"] == "x" * 20_000 for messages in taken for message in messages)
    # Each process has the messages of one writer in the order in which they were sent.
    for messages in taken:
        for name in "ab":
            numbers = [message["number"] for message in messages if message["from"] == name]
            assert numbers == sorted(numbers)


def test_it_hands_every_message_to_one_thread(tmp_path: Path) -> None:
    got: list[Any] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with queue(tmp_path) as messages:
                while (payload := take(messages)) != "end":
                    got.append(payload)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with queue(tmp_path) as messages:
        for number in range(300):
            messages.put([number, "x" * 20_000])
        for _ in threads:
            messages.put("end")
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures
    assert sorted(number for number, _ in got) == list(range(300))
