"""The directions that estimates are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.level import noisy
from gradprobe.core.streams import Block
from gradprobe.engine.continuity import pathwise_holds
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import room_for
from gradprobe.engine.pathwise import pathwise
from gradprobe.engine.sites import dtype_of
from gradprobe.estimators.apart import apart_bytes
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_blocks
from gradprobe.estimators.readout import ReadOut
from gradprobe.probes.moments import Moments
from gradprobe.probes.plan import Plan, Task
from gradprobe.probes.settings import Settings, engine_key
from gradprobe.problems.problem import Problem

Known = Mapping[str, Mapping[str, torch.Tensor]]
"""References without noise, each by parameter: ``"bp"``, and ``"dataset"`` if it was asked for."""


@dataclass(frozen=True)
class Reference:
    """A direction to hold estimates against, with the moments that its own noise needs (law: section 6)."""

    direction: dict[str, torch.Tensor]
    block_sqnorm: np.ndarray
    blocks: int


def with_levels(
    problem: Problem, known: Known, levels: Sequence[Layer]
) -> dict[str, dict[str, torch.Tensor]]:
    """References without noise, with 0 for levels of noise: nothing noisy is in their losses."""
    zeros = {
        name: torch.zeros(shape, dtype=dtype_of(problem, noisy([level])[0]), device=problem.device)
        for level in levels
        for name, shape in zip(level.parameters, level.shapes, strict=True)
    }
    return {reference: dict(gradient) | zeros for reference, gradient in known.items()}


def make_references(
    problem: Problem,
    task: Task,
    parameters: Sequence[str],
    known: Known,
    settings: Settings,
    tick: Callable[[int], None] = lambda copies: None,
) -> dict[str, Reference]:
    """The references of a task by name, in the order of the run's, backprop first.

    Args:
        problem: The problem.
        task: What is computed.
        parameters: Names of its parameters.
        known: References without noise, which all units share.
        settings: What all units share.
        tick: Called with 0 after each block of a smoothed reference; it may raise to stop.
    """
    found = {}
    for name, gradient in known.items():
        own = {p: gradient[p].double() for p in parameters}
        squares = np.array([float((g * g).sum()) for g in own.values()])
        found[name] = Reference(own, squares, 1)
    held = task.held(settings.references)
    if task.draw is not None and task.smooths and "smoothed" in held:
        copies = settings.copies_behind(task.key.group)
        size = reference_block(copies, settings.block, task.draw.antithetic)
        moments = Moments(parameters, {})
        for direction in _smoothed(problem, task, settings, size, copies // size):
            moments.add(direction)
            tick(0)
        blocks = moments.arrays()["block_sqnorm"]
        found["smoothed"] = Reference(moments.mean(), blocks[:, -1], blocks.shape[-1])
    return {name: found[name] for name in held}


def _smoothed(
    problem: Problem, task: Task, settings: Settings, size: int, blocks: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Blocks of the smoothed gradient: pathwise, or where that does not hold by scores with noise of their own."""
    assert task.draw is not None
    streams = settings.streams(task.key.seed, "smoothed")
    if task.key.group not in settings.scored:
        for index in range(blocks):
            yield pathwise(problem, task.draw, task.layers, Block(index, size), streams)
        return
    chosen = settings.engines.get(engine_key(task.draw, task.noisy))
    engine = settings.engine if chosen is None else Engine.parse(chosen)
    reading = Reading(problem, task.draw, task.layers, [ReadOut()], streams)
    for read in read_blocks(reading, range(blocks), size, engine, room(problem, task, settings)):
        (direction,) = read.directions
        yield {p: d * torch.nan for p, d in direction.items()} if read.nonfinite else direction


SMOOTHED_BY = ("auto", "pathwise", "score")


def smoothed_ways(problem: Problem, plan: Plan, wish: str, known: Mapping[str, str]) -> dict[str, str]:
    """How the smoothed reference of each draw and layer of a plan is made: ``"pathwise"`` or ``"score"``.

    Args:
        problem: The problem.
        plan: What is computed.
        wish: ``"auto"``: pathwise wherever that holds; or one of the two for all.
        known: What the run that is there uses.

    Raises:
        UsageError: The run that is there uses another than the one that is wished for.
    """
    found = dict(known)
    for task in plan.tasks:
        group = task.key.group
        if task.draw is None or not task.smooths:
            continue
        if group not in found:
            holds = wish == "pathwise" or (wish == "auto" and pathwise_holds(problem, task.draw, task.noisy))
            found[group] = "pathwise" if holds else "score"
        if wish not in ("auto", found[group]):
            raise UsageError(
                f"the run has smoothed references by {found[group]}, not by {wish}; choose another out= (or "
                f"smoothed_by={found[group]!r})."
            )
    return found


def room(problem: Problem, task: Task, settings: Settings) -> int | None:
    """Copies of a task that memory has room for at once.

    Raises:
        UsageError: Not even one.
    """
    if task.draw is None:
        return None
    directions, extra = len(task.readouts) + len(settings.references), 0
    if task.extras(settings.per_sample):
        readouts = list(task.readouts.values())
        extra = apart_bytes(problem, task.draw, task.noisy, readouts, settings.block)
    return room_for(problem, task.draw, task.noisy, directions, settings.memory, settings.sharers, extra)


def reference_block(copies: int, block: int, paired: bool) -> int:
    """Copies in a block of the smoothed reference: at most a block of the estimate, and at least two blocks.

    Raises:
        UsageError: Antithetic pairs do not fit.
    """
    step = 2 if paired else 1
    sizes = [n for n in range(step, min(block, copies // 2) + 1, step) if copies % n == 0]
    if not sizes:
        raise UsageError(f"reference_copies={copies} cannot hold antithetic pairs; use a multiple of 4.")
    return sizes[-1]
