"""Calls of an audited function on a module of its own, each from the same state and under a seed of its own."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradprobe.audits.effects import Effects, Snapshot
from gradprobe.audits.generators import seed_all, states
from gradprobe.audits.held import held
from gradprobe.audits.passes import counted
from gradprobe.audits.returned import Returned, collected
from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import map_tensors, tensors
from gradprobe.core.rows import Rows
from gradprobe.problems.objects import one_line
from gradprobe.problems.problem import Problem
from gradprobe.problems.state import class_lists, standing_in
from gradprobe.problems.twin import make_twin, widen

Function = Callable[..., Any]
"""``f(module, batch)``: module is a copy of the problem's, batch a copy of (inputs, target)."""


@dataclass(frozen=True)
class Called:
    """One call.

    Attributes:
        returned: What it gave.
        effects: What it left behind in the module.
        passes: Forward passes of the batch; 0 where none was seen.
        drew: Names of the global generators that it used.
        after: Digests of the global generators after it.
        held: What the function holds that is different after the call.
        batch_changed: Whether it changed the batch in place.
        seconds: How long it took.
    """

    returned: Returned
    effects: Effects
    passes: float
    drew: tuple[str, ...]
    after: dict[str, str]
    held: tuple[str, ...]
    batch_changed: bool
    seconds: float

    @property
    def directions(self) -> dict[str, torch.Tensor]:
        """The directions of the right shape, by parameter."""
        return self.returned.directions


class Bench:
    """A place where a function can be called without a trace in what is the user's.

    Args:
        function: ``f(module, batch)``.
        problem: The problem; its module is copied, in the mode and precision in which the problem runs it.
    """

    def __init__(self, function: Function, problem: Problem) -> None:
        self.function, self.problem = function, problem
        self._pristine = copy.deepcopy(make_twin(problem.module, problem.mode, problem.precision).module)
        values = problem.parameters
        with torch.no_grad():
            for name, p in self._pristine.named_parameters():
                p.copy_(values[name])
        self.rows = Rows(problem.samples, problem.batch_axis)
        self._renew()

    def call(self, key: int, grads: Mapping[str, torch.Tensor] | None = None, look: bool = False) -> Called:
        """Call the function once, from the state that the module had at first.

        Args:
            key: What the global generators are seeded with.
            grads: What is in ``.grad`` before the call; nothing by default.
            look: Whether to look at what the function itself holds, before and after.

        Raises:
            UsageError: The function fails, or returns what is no direction.
        """
        for name, p in self.module.named_parameters():
            p.grad = grads[name].clone() if grads is not None and name in grads else None
        batch = map_tensors(self._own, (self.problem.inputs, self.problem.target))
        before = map_tensors(torch.Tensor.clone, batch)
        kept = held(self.function) if look else {}
        with counted(self.module, self.rows) as passes:
            snapshot = Snapshot(self.module)
            seed_all(key)
            seeded, start = states(), time.perf_counter()
            returned = self._run(batch)
            seconds, after = time.perf_counter() - start, states()
            effects = snapshot.put_back()
        if "structure" in effects.said:
            self._renew()
        now = held(self.function) if look else {}
        return Called(
            returned,
            effects,
            sum(passes),
            tuple(name for name, state in after.items() if state != seeded[name]),
            after,
            tuple(name for name in {**kept, **now} if kept.get(name) != now.get(name)),
            not all(map(torch.equal, tensors(before), tensors(batch))),
            seconds,
        )

    def _run(self, batch: Any) -> Returned:
        """The call itself.

        Raises:
            UsageError: It fails, or returns what is no direction.
        """
        parameters = dict(self.module.named_parameters())
        with standing_in(self._listed), torch.enable_grad():
            try:
                value = self.function(self.module, batch)
            except (Exception, SystemExit) as error:
                self._renew()
                if isinstance(error, UsageError):
                    raise
                raise UsageError(
                    f"the function fails when it is called with the module and (inputs, target): {one_line(error)}."
                ) from error
            return collected(value, self.module, parameters)

    def _renew(self) -> None:
        """Begin with a new copy of the module."""
        self.module = copy.deepcopy(self._pristine)
        self._listed = class_lists(self.problem.module, self.module)

    def _own(self, t: torch.Tensor) -> torch.Tensor:
        wide = widen(t, self.problem.precision)
        return t.clone() if wide is t else wide
