"""What is told of an audited function, checked, and the problem that it is audited on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from gradprobe.checkup.finding import named
from gradprobe.core.errors import UsageError, one_of, positive, unknown, whole
from gradprobe.probes.checks import check_problem
from gradprobe.problems.problem import Problem

LEAST_SEEDS = 3
TARGETS = ("gradient", "surrogate")


@dataclass(frozen=True)
class Told:
    """What the user said of the function; see :func:`~gradprobe.audit`."""

    sigma: float | None
    samples: int | None
    where: str
    target: str
    repeats: int
    seeds: int
    root_seed: int

    @classmethod
    def of(
        cls, sigma: Any, samples: Any, where: Any, target: Any, repeats: Any, seeds: Any, root_seed: Any
    ) -> Told:
        """Check it.

        Raises:
            UsageError: It makes no sense.
        """
        one_of("where", where, ("weights", "activations"))
        one_of("target", target, TARGETS)
        return cls(
            None if sigma is None else positive("sigma", sigma),
            None if samples is None else whole("samples", samples),
            where,
            target,
            whole("repeats", repeats, 2),
            whole("seeds", seeds, LEAST_SEEDS),
            whole("root_seed", root_seed, 0),
        )


def problem_of(problem: Any, options: Mapping[str, Any], function: Callable[..., Any]) -> Problem:
    """The problem, made of a module where one was given.

    Args:
        problem: A problem or a module.
        options: What was given beyond the function's own arguments.
        function: Whose arguments are known besides those of a problem.

    Raises:
        UsageError: It cannot be made.
    """
    known = [k for k in inspect.signature(Problem).parameters if k != "module"]
    own = [k for k in inspect.signature(function).parameters if k not in ("function", "problem", "options")]
    for key in options:
        if key not in known:
            raise unknown("option", key, [*own, *known])
    if isinstance(problem, nn.Module):
        if "batch" not in options:
            raise UsageError("a module needs batch=(inputs, target) to be a problem.")
        return Problem(problem, **options)
    if options:
        raise UsageError(f"{named(sorted(options))} belongs to a module; this problem has it already.")
    check_problem(problem)
    return problem
