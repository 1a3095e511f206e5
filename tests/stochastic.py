"""A user's own stochastic estimator: no draw, no read-out, noise from its streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gradprobe.estimators.base import Block, Estimator, Layer, Problem, Streams, make


@dataclass(frozen=True)
class Shaky(Estimator):
    """The gradient, plus noise of its own."""

    size: float = 0.3

    def directions(self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams) -> dict:
        found = {}
        for name, g in make("bp").estimator.directions(problem, layers, block, streams).items():
            noise = streams.generator("gaussian", "weights", name, 0, block.index).standard_normal(g.shape)
            found[name] = g + self.size * torch.from_numpy(noise).to(g.dtype)
        return found
