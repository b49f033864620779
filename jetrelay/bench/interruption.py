"""SIGINT and SIGTERM end a benchmark in order: its processes, its database and its folder go, however far it had come.

with heeded():                  # from here on a signal raises Interrupted, once
    with running(…): …          # whose beginning and end are `unbroken`: a signal waits until they are over
"""

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """Told to stop by this signal. A KeyboardInterrupt, as libraries know to give up what they wait for on one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    """Of the one main thread that signals come to."""

    held = 0
    # The first signal that came; those after it change nothing.
    told: int | None = None
    raised = False


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Both signals raise Interrupted in the body. In the main thread alone, as Python gives signals to no other."""
    before = {number: signal.signal(number, _told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.told, _State.raised = None, False


def unbroken(manager: Callable[P, AbstractContextManager[T]]) -> Callable[P, AbstractContextManager[T]]:
    """Of a context manager: a signal that comes while it is entered or left is raised afterwards, so that nothing is half there."""

    @functools.wraps(manager)
    @contextlib.contextmanager
    def whole(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        with contextlib.ExitStack() as stack:
            try:
                with _hold():
                    value = stack.enter_context(manager(*args, **kwargs))
                yield value
            finally:
                with _hold():
                    stack.close()

    return whole


@contextlib.contextmanager
def _hold() -> Iterator[None]:
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
        _raise()


def _told(number: int, _: FrameType | None) -> None:
    _State.told = _State.told or number
    _raise()


def _raise() -> None:
    if _State.told and not _State.held and not _State.raised:
        _State.raised = True
        raise Interrupted(_State.told)
