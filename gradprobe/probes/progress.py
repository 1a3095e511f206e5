"""Progress of a probe in a terminal: a bar with rate and time left, or a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

EVERY = 10.0
"""Seconds between lines where the output is no terminal."""


@contextmanager
def shown(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show progress while the ``with`` lasts.

    Args:
        console: Where to.

    Yields:
        A function of (copies done, copies in all, what is running).
    """
    if console.is_terminal:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = [
            TextColumn("copies"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("probe", total=None, rate="")
            clock = _Clock()

            def update(done: int, total: int, label: str) -> None:
                bar.update(task, completed=done, total=total, rate=f"{clock.rate(done):,.0f}/s")

            yield update
        return
    clock = _Clock()

    def line(done: int, total: int, label: str) -> None:
        if done == total or clock.due():
            rate = clock.rate(done)
            left = (total - done) / rate if rate else float("inf")
            text = f"{done:,} of {total:,} copies, {rate:,.0f}/s, {left:.0f} s left"
            console.print(text, highlight=False)

    yield line


class _Clock:
    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def rate(self, done: int) -> float:
        return done / max(time.monotonic() - self.start, 1e-9)

    def due(self) -> bool:
        now = time.monotonic()
        if now - self.last < EVERY:
            return False
        self.last = now
        return True
