"""The gradient of the smoothed loss, which code with noise of a told sigma may rightly follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.continuity import pathwise_holds
from gradprobe.engine.draw import Draw
from gradprobe.engine.pathwise import pathwise
from gradprobe.problems.problem import Problem

PARTS, COPIES = 8, 16
"""Parts of the reference, and copies in each; products of different parts are |g|^2 without their noise."""


def smoothed_parts(
    problem: Problem, layers: Sequence[Layer], sigma: float, where: str, root_seed: int
) -> dict[str, dict[str, torch.Tensor]]:
    """Independent estimates of the gradient of the loss smoothed by Gaussian noise on all layers at once.

    Args:
        problem: The problem.
        layers: Its layers.
        sigma: Standard deviation of the noise.
        where: ``"weights"`` or ``"activations"``.
        root_seed: Root of the noise keys.

    Returns:
        ``"smoothed 0"``, ``"smoothed 1"``, ... -> direction by parameter; nothing where backprop under noise is not
        the gradient of the smoothed loss.
    """
    share = "batch" if where == "weights" else "sample"
    draw = Draw(where, injection="joint", share=share, sigma=sigma)
    noisy = tuple(x for x in layers if where == "weights" or x.activations)
    if not pathwise_holds(problem, draw, noisy):
        return {}
    streams = Streams(root_seed, 0, "audit smoothed")
    return {
        f"smoothed {i}": {
            p: d.double() for p, d in pathwise(problem, draw, noisy, Block(i, COPIES), streams).items()
        }
        for i in range(PARTS)
    }
