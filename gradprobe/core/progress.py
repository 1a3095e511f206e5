"""Progress in a terminal: a bar with rate and time left, or a plain line now and then."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console  # importing it draws from Python's generator

EVERY = 10.0
"""Seconds between lines where the output is no terminal."""
STRETCH = 1.0
"""Seconds that progress is measured over, at least."""
STRETCHES = 30
"""How many of them the rate is taken from: the last ones."""


@contextmanager
def shown(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show progress while the ``with`` lasts.

    Args:
        console: Where to.

    Yields:
        A function of (copies done, copies in all, what is running); as long as no copies are due (0 in all),
        what is running is shown.
    """
    if console.is_terminal:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
        )

        columns = [
            TextColumn("copies"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
        ]
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("probe", total=None, speed="")
            speed = Speed()

            def update(done: int, total: int, label: str) -> None:
                speed.note(done)
                text = speed.text(total - done) if total else label
                bar.update(task, completed=done, total=total or None, speed=text)

            yield update
        return
    speed, last = Speed(), time.monotonic()

    def line(done: int, total: int, label: str) -> None:
        nonlocal last
        speed.note(done)
        if 0 < total == done or time.monotonic() - last >= EVERY:
            last = time.monotonic()
            parts = (f"{done:,} of {total:,} copies", speed.text(total - done)) if total else (label,)
            console.print(", ".join(filter(None, parts)), highlight=False)

    yield line


class Speed:
    """Copies per second of late, and the time that the rest takes at that rate.

    Copies that were there already, in a saved state, come all at once. They would make the rate far too high, so
    the first report is only where counting starts, and of the stretches after it the fastest fifth is left out.

    Args:
        now: Clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._stretches: deque[tuple[int, float]] = deque(maxlen=STRETCHES)
        self._done, self._since = -1, 0.0

    def note(self, done: int) -> None:
        """Take note of copies done in all."""
        now = self._now()
        if self._done < 0 or done < self._done:  # fewer than before: a worker died
            self._done, self._since = done, now
        elif done > self._done and now - self._since >= STRETCH:
            self._stretches.append((done - self._done, now - self._since))
            self._done, self._since = done, now

    def rate(self) -> float | None:
        """Copies per second; None as long as there are not two stretches."""
        slowest = sorted(self._stretches, key=lambda stretch: stretch[0] / stretch[1])
        kept = slowest[: len(slowest) - math.ceil(len(slowest) / 5)]
        return sum(copies for copies, _ in kept) / sum(seconds for _, seconds in kept) if kept else None

    def text(self, left: int) -> str:
        """Rate, and time for the copies that are left; empty as long as it is not known."""
        rate = self.rate()
        if rate is None:
            return ""
        minutes, seconds = divmod(round(left / rate), 60)
        return f"{rate:,.0f}/s, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
