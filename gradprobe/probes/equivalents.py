"""What a copy of each unit costs, in forward passes of the whole network."""

from __future__ import annotations

from dataclasses import replace

from gradprobe.core.errors import UsageError
from gradprobe.engine.operations import Operations, count_operations
from gradprobe.probes.checks import layers_of
from gradprobe.probes.plan import Plan
from gradprobe.probes.settings import Settings, engine_key
from gradprobe.problems.problem import Problem


def with_shares(settings: Settings, problem: Problem, plan: Plan) -> Settings:
    """The settings with the share of a forward that a copy of each unit of a plan needs.

    It is the mathematics' cost: the multiply-adds that depend on the noise, relative to those of the whole forward
    (see :func:`~gradprobe.engine.operations.count_operations`), whichever engine runs the copies; of a derivative
    twice that, for values and tangents. Where the forward cannot be followed a copy counts as a whole forward, and
    the units say so.

    Args:
        settings: What all units share.
        problem: The problem; one forward of it is run, once.
        plan: What is computed.
    """
    draws = [(task.draw, tuple(task.noisy)) for task in plan.tasks if task.draw is not None]
    draws += [(draw, tuple(unit)) for task in plan.tasks for draw, unit, _ in task.drawn]
    if not draws:
        return settings
    found = problem.once("operations", lambda: _followed(problem))
    if isinstance(found, str):
        return replace(settings, unfollowed=found)
    shares = {engine_key(d, layers): d.passes * found.share(d, layers) for d, layers in draws}
    return replace(settings, shares=shares)


def _followed(problem: Problem) -> Operations | str:
    """The operations of a forward, or why they are not known."""
    try:
        return count_operations(problem, layers_of(problem))
    except UsageError as error:
        return str(error)
