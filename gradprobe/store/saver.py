"""Where the state of a unit goes while it is computed."""

from __future__ import annotations

import time
from collections.abc import Callable

from gradprobe.store.state import State, States, Wanted, combined

PAUSE = 20
"""How many times longer than the last save took the next one waits: saving costs 5 % at most."""


class Saver:
    """Holds the state of one unit, for a run in memory or for a process that has no access to the run.

    Args:
        start: The state to go on from, if there is one.

    Attributes:
        state: The last state that was saved.
        final: The state of the finished unit.
    """

    def __init__(self, start: State | None = None) -> None:
        self._start = start
        self.state: State | None = None
        self.final: State | None = None

    def load(self) -> State | None:
        """The state to go on from; None to begin at the beginning."""
        return self._start

    def due(self) -> bool:
        """Whether to save after this block. A state in memory is of use only when a stop was asked for."""
        return False

    def save(self, state: State) -> None:
        """Keep the state of a unit that is not finished."""
        self.state = state

    def finish(self, state: State) -> None:
        """Keep the state of the finished unit; the unit itself is stored after this."""
        self.final = state

    def stored(self) -> None:
        """Note that the unit itself is stored: its partial state can go."""


class Pace:
    """When the next save is due; shared by all units of a run, so that small ones are not saved all the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._next = float("-inf")

    def due(self) -> bool:
        """Whether it is time to save."""
        self._began = self._clock()
        return self._began >= self._next

    def saved(self) -> None:
        """Note that a save ended, whether it worked or not; it began when :meth:`due` was asked."""
        now = self._clock()
        self._next = now + PAUSE * (now - self._began)


class RunSaver(Saver):
    """Keeps states with a run.

    Args:
        wanted: What is computed.
        blocks: How many blocks it will have.
        partial: States of units that are not finished.
        sums: States of finished units; None does not keep this one.
        pace: When to save now and then; None: only when a stop was asked for.
        older: Further states to go on from.
    """

    def __init__(
        self,
        wanted: Wanted,
        blocks: int,
        partial: States,
        sums: States | None,
        pace: Pace | None,
        older: States | None = None,
    ) -> None:
        super().__init__()
        self._wanted, self._blocks = wanted, blocks
        self._partial, self._sums, self._older, self._pace = partial, sums, older, pace

    def load(self) -> State | None:
        """The state with most blocks that fits."""
        kept = self._older.of(self._wanted.key) if self._older is not None else []
        return combined([*kept, *self._partial.of(self._wanted.key)], self._wanted, self._blocks)

    def due(self) -> bool:
        """Whether the time since the last save is long against what it took."""
        return self._pace is not None and self._pace.due()

    def save(self, state: State) -> None:
        """Write the state.

        Raises:
            UsageError: It cannot be written.
        """
        try:
            self._partial.put(state)
        finally:
            if self._pace is not None:
                self._pace.saved()

    def finish(self, state: State) -> None:
        """Keep the final state, if it is to be kept.

        Raises:
            UsageError: It cannot be written.
        """
        self.final = state
        if self._sums is not None:
            self._sums.put(state)

    def stored(self) -> None:
        """Forget the partial state."""
        self._partial.forget(self._partial.name_of(self._wanted))
