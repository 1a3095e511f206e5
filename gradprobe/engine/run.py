"""Running a draw: a block of noise, the losses that it causes, and the inputs that it made noisy.

Two engines give the same numbers up to rounding. ``loop`` runs one forward for each copy and is right for any
model. ``tile`` folds the copies into the batch and needs per-sample losses and activation noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer
from gradprobe.core.protocols import Runnable
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import NOISE, Family

Site = tuple[str, int]
"""Layer name and call number (activation noise) or parameter number (weight noise)."""

Inputs = tuple[str, tuple[Any, ...], Mapping[str, Any]]
"""What a call of a layer saw: module path, positional and keyword arguments."""


@dataclass
class Segment:
    """Inputs that layers saw under noise, for some copies folded together along axis 0.

    Attributes:
        copies: Which copies.
        inputs: (layer, call) -> what it saw.
    """

    copies: slice
    inputs: dict[Site, Inputs] = field(default_factory=dict)


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
        engine: ``"loop"`` or ``"tile"``.

    Returns:
        Noise, losses and noisy inputs of the block.
    """
    noise = make_noise(problem, draw, layers, block, streams)
    with torch.no_grad():
        if draw.where == "activations":
            first = {(layers[0].name, 0)}
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
            noise[layer.name, number] = eps.to(device=like.device, dtype=_dtype(problem, layer))
    return noise


def site_shapes(problem: Runnable, draw: Draw, layer: Layer) -> list[tuple[int, ...]]:
    """Shape of one copy's noise at each site of a layer."""
    if draw.where == "activations":
        return [(1, *s[1:]) if draw.share == "batch" else s for s in layer.outputs]
    rows = (problem.batch_size,) if draw.share == "sample" else ()
    return [(*rows, *shape) for shape in layer.shapes]


def _dtype(problem: Runnable, layer: Layer) -> torch.dtype:
    return problem.parameters[layer.parameters[0]].dtype


def paths(layers: Sequence[Layer]) -> dict[str, str]:
    """Module path -> layer name."""
    return {path: layer.name for layer in layers for path in layer.modules}


def _noisy(output: Any, draw: Draw, layer: str, noise: torch.Tensor) -> Any:
    tensor = first_tensor(output)
    assert tensor is not None
    return with_first_tensor(output, tensor + draw.sigma_of(layer) * noise.to(tensor.dtype))


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
        _keep(segments[current], call, first)
        return _noisy(output, draw, call.layer, _site(noise, call)[current])

    with intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first) as calls:
        for current in range(copies):  # noqa: B007 - read by edit
            calls.restart()
            losses.append(problem.evaluate())
            _check_calls(calls.counts, layers)
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
        _keep(segment, call, first)
        tensor = first_tensor(output)
        if tensor is None or len(tensor) != copies * rows:
            raise UsageError(
                f"the output of layer {call.layer!r} has no row for each sample; use engine='loop'."
            )
        eps = _site(noise, call)
        return _noisy(output, draw, call.layer, eps.expand(-1, rows, *eps.shape[2:]).flatten(0, 1))

    with intercept(problem.twin, paths(layers), edit, lambda c: (c.layer, c.number) not in first) as calls:
        calls.restart()
        losses = problem.evaluate(repeats=copies)
        _check_calls(calls.counts, layers)
    return losses.view(copies, rows), [segment]


def _site(noise: dict[Site, torch.Tensor], call: Call) -> torch.Tensor:
    try:
        return noise[call.layer, call.number]
    except KeyError:
        raise _changed_calls(call.layer) from None


def _keep(segment: Segment, call: Call, first: set[Site]) -> None:
    if (call.layer, call.number) not in first:
        segment.inputs[call.layer, call.number] = (call.path, call.args, call.kwargs or {})


def _check_calls(counts: Mapping[str, int], layers: Sequence[Layer]) -> None:
    for layer in layers:
        if counts.get(layer.name, 0) != layer.calls:
            raise _changed_calls(layer.name)


def _changed_calls(layer: str) -> UsageError:
    return UsageError(
        f"layer {layer!r} is called a different number of times once noise is added; use weight noise there, or "
        "leave the layer out with layers=."
    )


def _perturbed(
    problem: Runnable, draw: Draw, layers: Sequence[Layer], noise: dict[Site, torch.Tensor], copies: int
) -> torch.Tensor:
    values = problem.parameters

    def shifted(k: int, row: int | None = None) -> dict[str, torch.Tensor]:
        new = {}
        for layer in layers:
            for number, name in enumerate(layer.parameters):
                eps = noise[layer.name, number][k]
                new[name] = values[name] + draw.sigma_of(layer.name) * (eps if row is None else eps[row])
        return new

    if draw.share == "batch":
        return torch.stack([problem.total(problem.evaluate(shifted(k))).double() for k in range(copies)])
    rows = range(problem.batch_size)
    return torch.stack(
        [torch.cat([problem.evaluate(shifted(k, b), sample=b) for b in rows]) for k in range(copies)]
    )
