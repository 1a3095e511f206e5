"""The gradient of the smoothed loss by backprop under noise: the reference called ``smoothed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.core.level import Level, noisy
from gradprobe.core.protocols import Runnable
from gradprobe.core.rows import along
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import make_noise
from gradprobe.engine.parts import Part
from gradprobe.engine.sites import Site, dtype_of


def pathwise(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], block: Block, streams: Streams
) -> dict[str, torch.Tensor]:
    """Mean over a block of the backprop gradient under noise of the draw's distribution.

    E over the noise of the gradient of ``sum_b w_b L_b(noise)``: for a loss that is continuous in the noise,
    the gradient of the smoothed loss, which LR and ES estimate. Where the loss jumps (thresholds, spikes,
    argmax) it misses the jumps and is no reference; hold estimates against an independent LR run there.

    Of a level of noise it is the mean of dL/dsigma, by backprop as well: dL/dv times the noise, summed.

    Args:
        problem: The problem.
        draw: Whose distribution of noise.
        layers: The layers that are noisy together, or the levels of their noise; gradients are returned for their
            parameters.
        block: Which copies.
        streams: Noise of the seed; use a purpose of its own so that it is independent of the estimates'.

    Returns:
        Parameter name -> gradient.
    """
    draw.check_block(block.copies)
    drawn = block.copies // 2 if draw.antithetic else block.copies
    noise: dict[Site, torch.Tensor] = {}
    layers, levels = noisy(layers), {x.level_of: x for x in layers if isinstance(x, Level)}
    values = problem.parameters
    leaves = _levels(problem, draw, levels) if levels else _weights(problem, layers)
    sums = {name: torch.zeros_like(leaf, dtype=torch.float64) for name, leaf in leaves.items()}
    rows: list[int | None] = [None]
    if draw.alone:
        rows = list(range(problem.batch_size))

    def edit(call: Call, output: Any) -> Any:
        if draw.where == "weights":
            return output
        if (call.layer, call.number) not in noise:
            raise UsageError(
                f"layer {call.layer!r} runs again during backward (activation checkpointing), so it has no smoothed "
                "reference; switch checkpointing off, or use reference='bp'."
            )
        tensor = first_tensor(output)
        assert tensor is not None
        eps = noise[call.layer, call.number].to(tensor.dtype)
        return with_first_tensor(output, tensor + sigma(call.layer, eps) * eps)

    def sigma(layer: str, eps: torch.Tensor) -> torch.Tensor | float:
        if layer not in levels:
            return draw.sigma_of(layer)
        leaf, axis = leaves[levels[layer].parameters[0]].to(eps.dtype), levels[layer].neurons
        return leaf if axis is None else along(leaf, axis, eps.ndim)

    def perturbed(row: int | None) -> dict[str, torch.Tensor]:
        own = {} if levels else leaves
        if draw.where == "activations":
            return own
        new = {}
        for layer in layers:
            for number, name in enumerate(layer.parameters):
                value = own.get(name, values[name])
                eps = noise[layer.name, number].to(value.dtype)
                eps = eps if row is None else eps[row]
                new[name] = value + sigma(layer.name, eps) * eps
        return new

    with torch.enable_grad(), intercept(problem.twin, paths(layers), edit) as calls:
        for copy in range(block.copies):
            part = Part(block.index, range(copy % drawn, copy % drawn + 1))
            sign = -1 if copy >= drawn else 1  # an antithetic partner
            drawn_now = make_noise(problem, draw, layers, [part], streams)
            noise |= {site: sign * eps[0] for site, eps in drawn_now.items()}
            for row in rows:
                calls.restart()
                found = problem.gradient(perturbed(row), list(leaves.values()), sample=row)
                for name, gradient in zip(leaves, found, strict=True):
                    if gradient is not None:
                        sums[name] += gradient.double() / block.copies
    return sums


def _weights(problem: Runnable, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    """What to differentiate with respect to: the layers' parameters."""
    values = problem.parameters
    return {name: values[name].clone().requires_grad_() for layer in layers for name in layer.parameters}


def _levels(problem: Runnable, draw: Draw, levels: Mapping[str, Level]) -> dict[str, torch.Tensor]:
    """What to differentiate with respect to: the levels, all of which stand at the draw's sigma."""
    return {
        level.parameters[0]: torch.full(
            level.shapes[0],
            draw.sigma_of(layer),
            dtype=dtype_of(problem, level.noisy),
            device=problem.device,
            requires_grad=True,
        )
        for layer, level in levels.items()
    }
