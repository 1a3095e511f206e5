"""Running a draw: a block of noise, the losses that it causes, and the inputs that it made noisy.

Three engines give the same numbers up to rounding. ``loop`` runs one forward for each copy and is right for any
model. ``tile`` folds the copies into the batch and needs per-sample losses and activation noise. ``vmap`` batches
the noise alone, so that what runs before the noisy layer runs once, and needs a model that torch can vectorise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, intercept
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Family
from gradprobe.engine.sites import (
    Segment,
    Site,
    add_noise,
    check_calls,
    dtype_of,
    keep,
    noise_at,
    paths,
    shifted,
    site_shapes,
)
from gradprobe.engine.vectorised import vectorised


@dataclass
class Outcome:
    """A block of a draw.

    Attributes:
        draw: The draw.
        noise: Site -> unit noise ``[m, *shape]`` in the model's dtype; axis 1 has length 1 if one noise
            serves the batch.
        losses: ``[m, B]``, or ``[m]`` where there is one loss for each copy; float64.
        segments: Inputs of the calls whose input carries noise.
    """

    draw: Draw
    noise: dict[Site, torch.Tensor]
    losses: torch.Tensor
    segments: list[Segment]

    @property
    def family(self) -> Family:
        """The noise family."""
        return NOISE.get(self.draw.noise)()


def run(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    block: Block,
    streams: Streams,
    engine: str = "loop",
) -> Outcome:
    """Run one block of a draw.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together, in execution order.
        block: Which copies.
        streams: Noise of the seed.
        engine: ``"loop"``, ``"tile"`` or ``"vmap"``.

    Returns:
        Noise, losses and noisy inputs of the block.
    """
    noise = make_noise(problem, draw, layers, block, streams)
    with torch.no_grad():
        first = {(layers[0].name, 0)}
        if engine == "vmap":
            losses, segments = vectorised(problem, draw, layers, noise, block.copies, first)
        elif draw.where == "activations":
            run_activations = _tile if engine == "tile" else _loop
            losses, segments = run_activations(problem, draw, layers, noise, block.copies, first)
        else:
            losses, segments = _perturbed(problem, draw, layers, noise, block.copies), []
    return Outcome(draw, noise, losses.double(), segments)


def make_noise(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], block: Block, streams: Streams
) -> dict[Site, torch.Tensor]:
    """Unit noise of a block for every site, ``[m, *shape]``; depends on the key alone."""
    draw.check_block(block.copies)
    like = next(iter(problem.parameters.values()))
    family: Family = NOISE.get(draw.noise)()
    drawn = block.copies // 2 if draw.antithetic else block.copies
    noise = {}
    for layer in layers:
        for number, shape in enumerate(site_shapes(problem, draw, layer)):
            generator = streams.generator(draw.noise, draw.where, layer.name, number, block.index)
            eps = torch.from_numpy(family.sample(generator, (drawn, *shape)))
            eps = torch.cat([eps, -eps]) if draw.antithetic else eps
            noise[layer.name, number] = eps.to(device=like.device, dtype=dtype_of(problem, layer))
    return noise


def _loop(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    noise: dict[Site, torch.Tensor],
    copies: int,
    first: set[Site],
) -> tuple[torch.Tensor, list[Segment]]:
    losses, segments = [], [Segment(slice(k, k + 1)) for k in range(copies)]
    current = 0

    def edit(call: Call, output: Any) -> Any:
        keep(segments[current], call, first)
        return add_noise(output, draw, call.layer, noise_at(noise, call)[current])

    with intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first) as calls:
        for current in range(copies):  # noqa: B007 - read by edit
            calls.restart()
            losses.append(problem.evaluate())
            check_calls(calls.counts, layers)
    return torch.stack(losses), segments


def _tile(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    noise: dict[Site, torch.Tensor],
    copies: int,
    first: set[Site],
) -> tuple[torch.Tensor, list[Segment]]:
    segment = Segment(slice(0, copies))
    rows = problem.batch_size

    def edit(call: Call, output: Any) -> Any:
        keep(segment, call, first)
        tensor = first_tensor(output)
        if tensor is None or len(tensor) != copies * rows:
            raise UsageError(
                f"the output of layer {call.layer!r} has no row for each sample; use engine='loop'."
            )
        eps = noise_at(noise, call)
        return add_noise(output, draw, call.layer, eps.expand(-1, rows, *eps.shape[2:]).flatten(0, 1))

    with intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first) as calls:
        calls.restart()
        losses = problem.evaluate(repeats=copies)
        check_calls(calls.counts, layers)
    return losses.view(copies, rows), [segment]


def _perturbed(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], noise: dict[Site, torch.Tensor], copies: int
) -> torch.Tensor:
    each = [{site: eps[k] for site, eps in noise.items()} for k in range(copies)]
    if draw.share == "batch":
        moved = (shifted(problem, draw, layers, eps) for eps in each)
        return torch.stack([problem.total(problem.evaluate(values)).double() for values in moved])

    def sample(eps: dict[Site, torch.Tensor], b: int) -> torch.Tensor:
        own = {site: e[b] for site, e in eps.items()}
        return problem.evaluate(shifted(problem, draw, layers, own), sample=b)

    rows = range(problem.batch_size)
    return torch.stack([torch.cat([sample(eps, b) for b in rows]) for eps in each])
