from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from gradprobe.probes.interrupt import on_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def seen() -> Iterator[list[int]]:
    """Signals that reach the handlers which were there before."""
    found: list[int] = []
    before = {number: signal.signal(number, lambda n, frame: found.append(n)) for number in BOTH}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("line", range(8))
def test_a_signal_while_handlers_are_given_back(line: int, number: int, seen: list[int]) -> None:
    """Another one arrives before any line of what the first has started."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_name != "give_back":
            return None
        if event == "line":
            lines += 1
            if lines == line + 1:
                signal.raise_signal(number)
        return trace

    handlers = [signal.getsignal(n) for n in BOTH]
    with on_signals() as stop:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            sys.settrace(before)
        assert [signal.getsignal(n) for n in BOTH] == handlers
    assert lines
    assert stop.asked
    assert set(seen) <= {number}
