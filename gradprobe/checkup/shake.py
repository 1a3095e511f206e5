"""One noisy forward: what noise of a draw, or a large perturbation, does to the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.engine.draw import Draw
from gradprobe.engine.sites import add_noise, check_calls
from gradprobe.problems.problem import Problem


@dataclass
class Shaken:
    """Losses under noise, and what became of the noise.

    Attributes:
        losses: ``[B]``, or ``[]`` for a copy's loss, as the model gives them.
        same: Layer -> how many numbers were the same after noise was added, and how many there are.
        types: Layer -> type of the numbers that noise was added to.
    """

    losses: torch.Tensor
    same: dict[str, tuple[int, int]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def note(self, layer: str, old: torch.Tensor, new: torch.Tensor) -> None:
        """Note what noise did to some numbers of a layer."""
        same, numbers = self.same.get(layer, (0, 0))
        self.same[layer] = same + int((old == new).sum()), numbers + old.numel()
        self.types[layer] = str(old.dtype).removeprefix("torch.")

    def lost(self, layer: str) -> float:
        """Share of a layer's noise that was rounded away."""
        same, numbers = self.same.get(layer, (0, 0))
        return same / numbers if numbers else 0.0


def shake(problem: Problem, draw: Draw, layers: Sequence[Layer], copy: int = 0, large: float = 0.0) -> Shaken:
    """Run one copy of Gaussian noise through a problem.

    Args:
        problem: The problem; in float64 it is given the same noise.
        draw: Where the noise goes, and its sigma; one noise for all samples in weights.
        layers: The layers that are noisy together.
        copy: Which copy: each has its own noise.
        large: In place of the draw's sigma: this many standard deviations (1 where there is none) of what the
            noise is added to.

    Raises:
        UsageError: A layer is called another number of times than without noise.
    """
    generator = torch.Generator().manual_seed(copy)
    with torch.no_grad():
        if draw.where == "weights":
            return _weights(problem, draw, layers, generator, large)
        return _activations(problem, draw, layers, generator, large)


def _weights(
    problem: Problem, draw: Draw, layers: Sequence[Layer], generator: torch.Generator, large: float
) -> Shaken:
    values, shaken = problem.parameters, Shaken(torch.empty(0))
    moved = {}
    for layer in layers:
        for name in layer.parameters:
            old = values[name]
            wide = torch.promote_types(old.dtype, torch.float32)
            noise = torch.randn(old.shape, generator=generator).to(device=old.device, dtype=wide)
            size = large * spread(old) or draw.sigma_of(layer.name)
            moved[name] = torch.add(old, noise, alpha=size).to(old.dtype)
            shaken.note(layer.name, old, moved[name])
    shaken.losses = problem.evaluate(moved)
    return shaken


def _activations(
    problem: Problem, draw: Draw, layers: Sequence[Layer], generator: torch.Generator, large: float
) -> Shaken:
    shaken = Shaken(torch.empty(0))

    def edit(call: Call, output: Any) -> Any:
        old = first_tensor(output)
        assert old is not None
        noise = torch.randn(old.shape, generator=generator).to(old)
        if large:
            return with_first_tensor(output, torch.add(old, noise, alpha=large * spread(old)))
        noisy = add_noise(output, draw, call.layer, noise)
        new = first_tensor(noisy)
        assert new is not None
        shaken.note(call.layer, old, new)
        return noisy

    with intercept(problem.twin, paths(layers), edit) as calls:
        calls.restart()
        shaken.losses = problem.evaluate()
        check_calls(calls.counts, layers)
    return shaken


def spread(t: torch.Tensor) -> float:
    """Standard deviation of some numbers; 1 where there is none."""
    found = float(t.float().std(correction=0)) if t.numel() else 0.0
    return found if 0 < found < float("inf") else 1.0
