"""Computing one unit: blocks of directions into moments, with the references that they are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.pathwise import pathwise
from gradprobe.estimators.draws import Read, read_block
from gradprobe.probes.moments import Moments
from gradprobe.probes.plan import OWN, Task
from gradprobe.problems.problem import Problem
from gradprobe.store.schema import Unit

Directions = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """What all units of a run share.

    Attributes:
        block: Copies in a block.
        copies: Copies in all.
        root_seed: Root of all noise keys.
        references: ``("bp",)`` or ``("bp", "smoothed")``.
        reference_copies: Copies behind a smoothed reference.
        engine: ``"auto"``, ``"loop"``, ``"tile"`` or ``"vmap"``.
        engines: The engine of each unit, by :func:`engine_key`; it takes the place of ``"auto"``.
    """

    block: int
    copies: int
    root_seed: int = 0
    references: tuple[str, ...] = ("bp",)
    reference_copies: int = 64
    engine: str = "auto"
    engines: Mapping[str, str] = field(default_factory=dict)


def engine_key(draw: Draw, layers: Sequence[Layer]) -> str:
    """What an engine is chosen for: kind of draw, and the layers that are noisy together."""
    return f"{draw.where} {draw.injection} {draw.share} | {', '.join(layer.name for layer in layers)}"


@dataclass(frozen=True)
class Reference:
    """A direction to hold estimates against, with the moments that its own noise needs (law: section 6)."""

    direction: Directions
    block_sqnorm: np.ndarray
    blocks: int


def compute(
    problem: Problem,
    task: Task,
    gradient: Mapping[str, torch.Tensor],
    settings: Settings,
    tick: Callable[[int], None] = lambda copies: None,
) -> Unit:
    """Compute a unit.

    Args:
        problem: The problem.
        task: What to compute.
        gradient: Backprop gradient by parameter.
        settings: What all units share.
        tick: Called after each block with the number of copies in it.

    Returns:
        The unit; its status is "failed" if every copy's loss was not finite or the draw cannot be run.
    """
    parameters = tuple(p for layer in task.layers for p in layer.parameters)
    names = tuple(task.readouts) or (OWN,)
    start = time.perf_counter()
    references = _references(problem, task, parameters, gradient, settings)
    spent = time.perf_counter() - start
    directions = {name: r.direction for name, r in references.items()}
    moments = {name: Moments(parameters, directions) for name in names}
    count = 1 if _fixed(task) else settings.copies // settings.block
    nonfinite, note = [], ""
    counted, before = [], problem.forwards
    try:
        for index in range(count):
            read = _read(problem, task, Block(index, settings.block), settings)
            nonfinite.append(read.nonfinite)
            counted.append(problem.forwards - before)
            for name, found in zip(names, read.directions, strict=True):
                moments[name].add(found)
            tick(settings.block)
    except UsageError as error:
        note = str(error)
    if not note and sum(nonfinite) == count * settings.block:
        note = "the loss of every copy was not finite; use a smaller sigma or look at the model's outputs"
        if task.estimator is not None:
            note = f"{type(task.estimator).__name__}.directions returned values that are not finite"
    unit = _unit(task, names, parameters, moments, references, nonfinite, settings, bool(note))
    if task.estimator is not None:
        unit.forwards = np.array(counted[:count] + [np.nan] * (count - len(counted)))
        unit.equivalents = unit.forwards * (3 if task.estimator.uses_backward else 1)
    if not note and any(not np.isfinite(r.block_sqnorm).all() for r in references.values()):
        note = "the smoothed reference is not finite: a copy of its own had a loss that was not"
    unit.seconds, unit.note = time.perf_counter() - start - spent, note
    return unit


def _fixed(task: Task) -> bool:
    return task.estimator is not None and not task.estimator.stochastic


def _read(problem: Problem, task: Task, block: Block, settings: Settings) -> Read:
    streams = Streams(settings.root_seed, task.key.seed)
    if task.draw is not None:
        readouts = list(task.readouts.values())
        engine = settings.engines.get(engine_key(task.draw, task.layers), settings.engine)
        return read_block(problem, task.draw, task.layers, readouts, block, streams, engine)
    assert task.estimator is not None
    found = task.estimator.directions(problem, task.layers, block, streams)
    missing = [p for layer in task.layers for p in layer.parameters if p not in found]
    if missing:
        raise UsageError(f"{type(task.estimator).__name__}.directions returned nothing for {missing[0]!r}.")
    for layer in task.layers:
        for p, shape in zip(layer.parameters, layer.shapes, strict=True):
            if not isinstance(found[p], torch.Tensor) or tuple(found[p].shape) != shape:
                raise UsageError(
                    f"{type(task.estimator).__name__}.directions must return {p!r} with shape {shape}"
                )
    if all(bool(d.isfinite().all()) for d in found.values()):
        return Read([found], 0)
    return Read([{p: torch.zeros_like(d) for p, d in found.items()}], block.copies)


def _references(
    problem: Problem,
    task: Task,
    parameters: Sequence[str],
    gradient: Mapping[str, torch.Tensor],
    settings: Settings,
) -> dict[str, Reference]:
    own = {p: gradient[p].double() for p in parameters}
    squares = np.array([float((g * g).sum()) for g in own.values()])
    found = {"bp": Reference(own, squares, 1)}
    if "smoothed" in settings.references and task.draw is not None:
        streams = Streams(settings.root_seed, task.key.seed, "smoothed")
        size = reference_block(settings, task.draw.antithetic)
        blocks = settings.reference_copies // size
        moments = Moments(parameters, {})
        for index in range(blocks):
            moments.add(pathwise(problem, task.draw, task.layers, Block(index, size), streams))
        found["smoothed"] = Reference(moments.mean(), moments.arrays()["block_sqnorm"][:, -1], blocks)
    return found


def reference_block(settings: Settings, paired: bool) -> int:
    """Copies in a block of the smoothed reference: at most a block of the estimate, and at least two blocks.

    Raises:
        UsageError: Antithetic pairs do not fit.
    """
    whole, step = settings.reference_copies, 2 if paired else 1
    sizes = [n for n in range(step, min(settings.block, whole // 2) + 1, step) if whole % n == 0]
    if not sizes:
        raise UsageError(f"reference_copies={whole} cannot hold antithetic pairs; use a multiple of 4.")
    return sizes[-1]


def _unit(
    task: Task,
    names: tuple[str, ...],
    parameters: tuple[str, ...],
    moments: dict[str, Moments],
    references: dict[str, Reference],
    nonfinite: list[int],
    settings: Settings,
    failed: bool,
) -> Unit:
    count = 1 if _fixed(task) else settings.copies // settings.block
    shape = (len(names), len(parameters), count)
    if failed:
        arrays: dict[str, Any] = {name: np.full(shape, np.nan) for name in ("sqnorm", "block_sqnorm")}
        arrays["dot"] = np.full((len(references), *shape), np.nan)
    else:
        each = [moments[name].arrays() for name in names]
        arrays = {name: np.stack([a[name] for a in each]) for name in ("sqnorm", "block_sqnorm")}
        arrays["dot"] = np.stack([a["dot"] for a in each], axis=1)
    own = references["bp"].direction
    scalars: dict[str, Any] = {
        "reference_sqnorm": [
            [float((r.direction[p] ** 2).sum()) for p in parameters] for r in references.values()
        ],
        "reference_block_sqnorm": [r.block_sqnorm for r in references.values()],
        "reference_blocks": [[r.blocks] * len(parameters) for r in references.values()],
        "reference_dot": [
            [float((r.direction[p] * own[p]).sum()) for p in parameters] for r in references.values()
        ],
    }
    arrays |= {name: np.asarray(value, dtype=np.float64) for name, value in scalars.items()}
    boundaries = settings.block * np.arange(1.0, count + 1)
    return Unit(
        key=task.key,
        readouts=names,
        parameters=parameters,
        block=settings.block,
        references=tuple(references),
        status="failed" if failed else "ok",
        forwards=boundaries,
        equivalents=boundaries,
        nonfinite=np.cumsum(np.array(nonfinite + [0] * (count - len(nonfinite)), dtype=np.float64)),
        **arrays,
    )
