"""How Python is set in workers and listeners: in a process of its own, because it would change the tests'."""

import ctypes
import subprocess
import sys

import pytest


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


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc keeps them")
def test_a_large_block_that_is_freed_leaves_no_hole_though_others_came_and_went_before_it() -> None:
    code = (
        "from delivery import interpreter; interpreter.return_large_blocks()\n"
        "def own(): return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon'))\n"
        "before = own(); size = 20_000_000\n"
        "first = bytearray(size); del first\n"
        "second = bytearray(b'x' * size); later = [bytearray(3_000) for _ in range(100)]; held = own(); del second\n"
        "print(held - before > 15_000, own() - before < 5_000)"
    )
    assert run(code).strip() == "True True"
    assert run(code.replace("interpreter.return_large_blocks()", "")).strip() == "True False"
