"""The directions that estimates are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.pathwise import pathwise
from gradprobe.probes.moments import Moments
from gradprobe.probes.plan import Task
from gradprobe.probes.settings import Settings
from gradprobe.problems.problem import Problem


@dataclass(frozen=True)
class Reference:
    """A direction to hold estimates against, with the moments that its own noise needs (law: section 6)."""

    direction: dict[str, torch.Tensor]
    block_sqnorm: np.ndarray
    blocks: int


def make_references(
    problem: Problem,
    task: Task,
    parameters: Sequence[str],
    gradient: Mapping[str, torch.Tensor],
    settings: Settings,
) -> dict[str, Reference]:
    """The references of a task by name, backprop first.

    Args:
        problem: The problem.
        task: What is computed.
        parameters: Names of its parameters.
        gradient: Backprop gradient by parameter.
        settings: What all units share.
    """
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
