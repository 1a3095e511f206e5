"""Stopping on request: the first signal lets the block finish, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(Exception):
    """A stop was asked for; raised between blocks."""


class Stop:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise :class:`Stopped` if a stop was asked for."""
        if self.asked:
            raise Stopped


@contextmanager
def on_signals() -> Iterator[Stop]:
    """Note SIGINT and SIGTERM instead of dying of them, for the length of the ``with``.

    Only the main thread can; elsewhere nothing changes. The handlers that were there come back at the first
    signal (so that a second one does what it always did) and at the end.

    Yields:
        What was asked for so far.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {}

    def give_back() -> None:
        for number in list(before):  # a signal meanwhile comes here too, and takes its share
            handler = before.pop(number, None)
            if handler is not None:
                signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        give_back()

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None:  # one that was not set from Python cannot be given back
            before[number] = handler
            signal.signal(number, note)
    try:
        yield stop
    finally:
        give_back()
