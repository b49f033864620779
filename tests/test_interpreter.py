"""How Python is set in workers and listeners: in a process of its own, because it would change the tests'."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout


def test_what_is_loaded_is_left_out_of_collections_and_later_cycles_are_found() -> None:
    code = (
        "import gc, weakref; from delivery import interpreter; interpreter.collect_rarely()\n"
        "class Node: pass\n"
        "node = Node(); node.self = node; gone = weakref.ref(node); del node; kept = gone() is not None; gc.collect(0)\n"
        "print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000, kept, gone() is None, gc.get_threshold())"
    )
    assert run(code).strip() == "True True True True (50000, 10, 10)"


def test_threads_hand_over_within_a_millisecond() -> None:
    assert float(run("import sys; from delivery import interpreter; interpreter.take_short_turns(); print(sys.getswitchinterval())")) <= 0.001
