"""Progress: a line in a notebook that is written over, a bar in a terminal, or the user's own function."""

from __future__ import annotations

import functools
import html
import random
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from gradprobe.core.errors import UsageError
from gradprobe.core.progress import Speed, shown
from gradprobe.core.shell import notebook_shell

Progress = Callable[[int, int, str], None]
"""Called with (how much is done, how much there is, what is running)."""

P = ParamSpec("P")
R = TypeVar("R")

_UNITS = ("units/*", "partial/*", "batch-*/units/*", "batch-*/partial/*")

EVERY = 0.25
"""Seconds between two versions of the line."""
LONGEST = 60
"""Letters of what is running that are shown."""


def told(unit: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator for a function whose ``progress=`` is None, True, False or a function of the user's.

    None shows a line in a notebook and nothing elsewhere, True a line or, elsewhere, a bar. The function itself is
    given a function, or None. At the end the line says what came of it, from the result's ``attrs["stopped"]`` and
    from what ``out=`` held before.

    Args:
        unit: What is counted ("copies").
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = dict(kwargs)
            call: Callable[..., R] = function
            teller = _teller(given.get("progress"), unit)
            if teller is None:
                wish = given.get("progress")
                return call(*args, **given | {"progress": wish if callable(wish) else None})
            went_on = _holds_units(given.get("out"))
            with teller:
                result = call(*args, **given | {"progress": teller})
                attrs = getattr(result, "attrs", {})
                teller.ended(bool(attrs.get("stopped")), went_on, given.get("out") is not None)
            return result

        return run

    return decorate


class Teller:
    """What tells of progress until the ``with`` ends; subclasses show a text.

    Args:
        unit: What is counted.
        now: Clock, in seconds.
    """

    def __init__(self, unit: str, now: Callable[[], float] = time.monotonic) -> None:
        self.unit, self._now = unit, now
        self._begun = now()
        self._done = self._total = 0
        self._closed = False

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and not self._closed:
            self._closed = True
            if self._total:
                self.close(f"Ended by {kind.__name__}, {self._so_far()}.")

    def __call__(self, done: int, total: int, label: str) -> None:
        """Take note of progress, and show it now and then."""
        self._done, self._total = done, total or self._total
        self.show(done, total, label)

    def ended(self, stopped: bool, went_on: bool, kept: bool) -> None:
        """Show the last line.

        Args:
            stopped: Whether the user stopped it.
            went_on: Whether there was something to go on from.
            kept: Whether the same call can go on from what there is.
        """
        self._closed = True
        before = " (more was there before)" if went_on else ""
        if stopped:
            way = "the same call goes on from there" if kept else "what there is was returned"
            self.close(f"Stopped: {self._so_far()}{before}; {way}.")
        elif self._total:
            self.close(f"{self._total:,} {self.unit} in {clock(self._now() - self._begun)}{before}.")
        elif went_on:
            self.close("Nothing was missing: all of it was there before.")

    def _so_far(self) -> str:
        return f"{self._done:,} of {self._total:,} {self.unit} after {clock(self._now() - self._begun)}"

    def show(self, done: int, total: int, label: str) -> None:
        """Show how far it is; 0 in all: only what is running is known."""
        raise NotImplementedError

    def close(self, sentence: str) -> None:
        """Show the last line."""
        raise NotImplementedError


class Line(Teller):
    """One line of a notebook that is written over; what is saved with the notebook is the last.

    Args:
        shell: The kernel's IPython.
        unit: What is counted.
        now: Clock, in seconds.
    """

    def __init__(self, shell: Any, unit: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(unit, now)
        self._shell, self._id = shell, uuid.uuid4().hex
        self._speed, self._shown = Speed(now), float("-inf")
        self._there = False

    def show(self, done: int, total: int, label: str) -> None:
        """Write the line over, unless that was a moment ago."""
        self._speed.note(done)
        if self._now() - self._shown < EVERY:
            return
        self._shown = self._now()
        label = label if len(label) <= LONGEST else f"…{label[-LONGEST:]}"  # layer and seed come last
        if not total:
            return self._write(label)
        far = f"{done:,} of {total:,} {self.unit}"
        text = " · ".join(filter(None, [far, self._speed.text(total - done), label]))
        bar = f'<progress value="{done}" max="{total}" aria-label="{html.escape(far)}"></progress> '
        self._write(text, bar)

    def close(self, sentence: str) -> None:
        """Write the last line."""
        self._write(sentence)

    def _write(self, text: str, bar: str = "") -> None:
        numbers = "font-variant-numeric:tabular-nums"
        data = {"text/plain": text, "text/html": f'<span style="{numbers}">{bar}{html.escape(text)}</span>'}
        self._shell.display_pub.publish(data, transient={"display_id": self._id}, update=self._there)
        self._there = True


class Bar(Teller):
    """The bar of a terminal, or a plain line now and then where there is none."""

    def __enter__(self) -> Bar:
        state = random.getstate()
        from rich.console import Console

        random.setstate(state)  # rich draws from Python's generator when it is imported
        self._console, self._stack = Console(stderr=True), ExitStack()
        self._update = self._stack.enter_context(shown(self._console))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._stack.close()

    def show(self, done: int, total: int, label: str) -> None:
        """Move the bar."""
        self._update(done, total, label)

    def close(self, sentence: str) -> None:
        """Take the bar away and print the last line."""
        self._stack.close()
        self._console.print(sentence, highlight=False, markup=False)


def clock(seconds: float) -> str:
    """A duration as it is read: ``0.4 s``, ``12 s``, ``3:05 min``, ``2:03:05 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def _teller(wish: Any, unit: str) -> Teller | None:
    """What a user's wish asks for; None: nothing, or the user's own function.

    Raises:
        UsageError: It is no wish.
    """
    if callable(wish):
        return None
    if wish is not None and not isinstance(wish, bool):
        raise UsageError(
            f"progress must be True, False, None or a function of (done, in all, what runs), not {wish!r}."
        )
    shell = notebook_shell()
    if shell is not None and wish is not False:
        return Line(shell, unit)
    return Bar(unit) if wish else None


def _holds_units(out: Any) -> bool:
    """Whether a run directory, or one of its batches, holds something that was computed."""
    if not isinstance(out, str | Path):
        return False
    try:
        return any(True for pattern in _UNITS for _ in Path(out).glob(pattern))
    except OSError:
        return False
