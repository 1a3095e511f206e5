"""What is kept besides moments: the final sums of units, for products of seeds or to go on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gradprobe.probes.plan import Plan, Task
from gradprobe.probes.running import wanted
from gradprobe.probes.settings import Settings
from gradprobe.store.run import RunStore
from gradprobe.store.schema import KEPT, TOO_LARGE

SCRATCH = 2**30
"""Bytes that the final sums of all units of a request may take until their products are stored."""


def plan_products(plan: Plan, settings: Settings, keep: str) -> dict[str, str]:
    """Of which draws and layers products of seeds are kept, smallest first as long as there is room.

    All their sums are there until the last seed is done, so the limit is on the sum over draws and layers.

    Args:
        plan: What is computed.
        settings: What all units share.
        keep: ``"products"``, ``"moments"`` or ``"sums"``.

    Returns:
        Draw and layer (:attr:`UnitKey.group`) -> "kept" or "too large"; nothing if only moments are kept.
    """
    if keep == "moments":
        return {}
    needs: Counter[str] = Counter()
    for task in plan.tasks:
        if not task.fixed:
            of = wanted(task, settings)
            needs[task.key.group] += 8 * len(of.readouts) * sum(of.sizes)
    found, taken = {}, 0
    for group, need in sorted(needs.items(), key=lambda item: item[1]):
        taken += need
        found[group] = KEPT if taken <= SCRATCH else TOO_LARGE
    return found


class Groups:
    """The tasks of each draw and layer that are not done yet; when there is none left, products are made.

    Args:
        tasks: All tasks of the request.
        todo: Those that are to be computed.
        settings: What all units share.
        store: The run.
    """

    def __init__(
        self, tasks: Sequence[Task], todo: Sequence[Task], settings: Settings, store: RunStore
    ) -> None:
        self._store, self._settings = store, settings
        self._left = Counter(task.key.group for task in todo)
        self._tasks: dict[str, list[Task]] = {}
        for task in tasks:
            if not task.fixed:
                self._tasks.setdefault(task.key.group, []).append(task)
        for group in self._tasks:
            if not self._left[group]:  # a process that was killed may have left its sums
                self._settle(group)

    def finished(self, task: Task) -> None:
        """Note that a task's unit is stored."""
        group = task.key.group
        self._left[group] -= 1
        if not self._left[group] and not task.fixed:
            self._settle(group)

    def stopped(self) -> None:
        """Make the products of what there is, if it cannot go on from here: a run in memory."""
        for group in self._tasks if self._store.path is None else ():
            self._settle(group)

    def _settle(self, group: str) -> None:
        units = [wanted(task, self._settings) for task in self._tasks[group]]
        self._store.settle(units, self._settings.blocks)
