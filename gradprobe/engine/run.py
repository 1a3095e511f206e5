"""Running a draw: noise for some copies, the losses that it causes, and the inputs that it made noisy.

Three engines give the same numbers up to rounding. ``loop`` runs one forward for each copy and is right for any
model. ``tile`` folds the copies into the batch and needs per-sample losses and activation noise. ``vmap`` batches
the noise alone, so that what runs before the noisy layer runs once, and needs a model that torch can vectorise.

Where a draw measures derivatives, the noise is the tangent of a zero that is added, and "losses" are the losses'
derivatives along it. They are linear in the noise: no centre is needed, and all inputs are clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, intercept
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.core.rows import fold
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import in_layout, make_noise
from gradprobe.engine.engines import Engine
from gradprobe.engine.forward_mode import tangents, with_tangents
from gradprobe.engine.graph import Graph
from gradprobe.engine.moving import drawn_once, moving
from gradprobe.engine.noise import Family, make_family
from gradprobe.engine.parts import Part, whole
from gradprobe.engine.signs import bytes_kept, opened
from gradprobe.engine.sites import (
    Forward,
    Segment,
    Site,
    add_noise,
    check_calls,
    noise_at,
    shifted,
)
from gradprobe.engine.storing import AS_IT_IS, Noise, Storing
from gradprobe.engine.vectorised import one_by_one, vectorised


@dataclass
class Outcome:
    """Some copies of a draw.

    Attributes:
        draw: The draw.
        noise: Site -> unit noise ``[n, *shape]`` in the model's dtype, or its signs; axis 1 has length 1 if one
            noise serves the batch. ``[n/2, *shape]`` where antithetic pairs share it.
        losses: ``[n, B]``, or ``[n]`` where there is one loss for each copy; float64. Of a draw that measures
            derivatives, these.
        apart: The samples' losses ``[n, B]`` where ``losses`` are their weighted sums (weight noise that the batch
            shares); None elsewhere.
        segments: Inputs of the calls whose input carries noise.
        halved: Whether pairs share a row of the noise; see :class:`Forward`.
    """

    draw: Draw
    noise: Mapping[Site, Noise]
    losses: torch.Tensor
    segments: list[Segment]
    apart: torch.Tensor | None = None
    halved: bool = False

    def drawn(self, site: Site, at: slice) -> torch.Tensor:
        """The noise of the copies at ``at``, which are one part: without their partners where pairs share it."""
        noise = self.noise[site]
        return opened(noise[at.start // 2 : at.stop // 2] if self.halved else noise[at])

    def only_losses(self) -> Outcome:
        """Its losses alone, without noise and inputs."""
        return replace(self, noise={}, segments=[])

    @property
    def bytes(self) -> np.ndarray:
        """Bytes of a copy's noise and noisy inputs ``[2]``: as they are kept, and as numbers."""
        inputs = [value for segment in self.segments for value in segment.inputs.values()]
        return np.array(bytes_kept([*self.noise.values(), *inputs])) / max(len(self.losses), 1)

    @property
    def family(self) -> Family:
        """The noise family."""
        return make_family(self.draw.noise)


def run(
    problem: Runnable,
    draw: Draw,
    layers: Sequence[Layer],
    copies: Block | Sequence[Part],
    streams: Streams,
    engine: Engine | str = "loop",
    graph: Graph | None = None,
    storing: Storing = AS_IT_IS,
) -> Outcome:
    """Run some copies of a draw.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together, in execution order.
        copies: Which copies: a block, or parts of blocks.
        streams: Noise of the seed.
        engine: How.
        graph: The traced forward, for an engine that runs it.
        storing: How noise and noisy inputs are kept.

    Returns:
        Noise, losses and noisy inputs of the copies, in the order of the parts.
    """
    engine = Engine.parse(engine) if isinstance(engine, str) else engine
    parts = [whole(copies, draw.antithetic)] if isinstance(copies, Block) else list(copies)
    halves = drawn_once(draw, parts)
    noise = in_layout(make_noise(problem, draw, layers, parts, streams, not halves), engine.layout)
    first = {(layers[0].name, 0)}
    forward = Forward(problem, draw, layers, noise, first, graph, engine.layout, halves, storing)
    found, segments = _executed(forward, engine)
    losses = _charged(forward, found)
    kept: dict[Site, Noise] = {}
    for site in list(noise):
        kept[site] = storing.of_noise(noise.pop(site))
    return Outcome(draw, kept, losses, segments, None if losses is found else found, bool(halves))


def execute(forward: Forward, engine: Engine) -> tuple[torch.Tensor, list[Segment]]:
    """Losses ``[n, B]`` or ``[n]`` (float64) and noisy inputs of a forward whose noise is there."""
    losses, segments = _executed(forward, engine)
    return _charged(forward, losses), segments


def _charged(forward: Forward, losses: torch.Tensor) -> torch.Tensor:
    """The losses that noise is credited with: of weight noise that the batch shares, the copies'."""
    shared = forward.draw.where == "weights" and forward.draw.share == "batch"
    return forward.problem.total(losses) if shared and losses.ndim > 1 else losses


def _executed(forward: Forward, engine: Engine) -> tuple[torch.Tensor, list[Segment]]:
    """Losses of the samples ``[n, B]``, or of the copies ``[n]`` where samples have none; noisy inputs."""
    with torch.no_grad():
        if engine.name == "vmap":
            losses, segments = vectorised(forward)
        elif forward.graph is not None:
            losses, segments = one_by_one(forward)
        elif forward.draw.derived:
            with with_tangents(forward) as dual:
                losses, segments = _plainly(dual, engine)
                losses = tangents(losses)
        else:
            losses, segments = _plainly(forward, engine)
    if forward.draw.derived:
        forward.problem.count((forward.draw.passes - 1) * forward.copies)
    return losses.double(), segments


def _plainly(forward: Forward, engine: Engine) -> tuple[torch.Tensor, list[Segment]]:
    """The same by the model itself, one copy after another or in tiles."""
    if forward.draw.where == "weights":
        return _perturbed(forward), []
    return _tile(forward) if engine.name == "tile" else _loop(forward)


def _loop(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    losses, segments = [], [Segment(slice(k, k + 1)) for k in range(forward.copies)]
    problem, current = forward.problem, 0

    def edit(call: Call, output: Any) -> Any:
        forward.keep(segments[current], call)
        return add_noise(output, forward.draw, call.layer, noise_at(forward.noise, call)[current])

    with intercept(problem.twin, paths(forward.layers), edit, forward.later) as calls:
        for current in range(forward.copies):  # noqa: B007 - read by edit
            calls.restart()
            losses.append(problem.evaluate(layout=forward.layout))
            check_calls(calls.counts, forward.layers)
    return torch.stack(losses), segments


def _tile(forward: Forward) -> tuple[torch.Tensor, list[Segment]]:
    copies, problem = forward.copies, forward.problem
    segment = Segment(slice(0, copies))
    rows = problem.batch_size
    axes = {layer.name: layer.axis for layer in forward.layers}

    def edit(call: Call, output: Any) -> Any:
        forward.keep(segment, call)
        tensor, axis = first_tensor(output), axes[call.layer]
        if tensor is None or tensor.ndim <= axis or tensor.shape[axis] != copies * rows:
            raise UsageError(
                f"the output of layer {call.layer!r} has no row for each sample; use engine='loop'."
            )
        eps = noise_at(forward.noise, call)
        shape = [*eps.shape[: axis + 1], rows, *eps.shape[axis + 2 :]]
        return add_noise(output, forward.draw, call.layer, fold(eps.expand(shape), axis))

    with intercept(problem.twin, paths(forward.layers), edit, forward.later) as calls:
        calls.restart()
        losses = problem.evaluate(repeats=copies, layout=forward.layout)
        check_calls(calls.counts, forward.layers)
    return losses.view(copies, rows), [segment]


def _perturbed(forward: Forward) -> torch.Tensor:
    problem, draw, layers = forward.problem, forward.draw, forward.layers
    if draw.share == "batch" and not draw.derived:
        return problem.evaluate_each(*moving(forward), forward.layout)

    def sample(eps: dict[Site, torch.Tensor], b: int) -> torch.Tensor:
        own = {site: e[b] for site, e in eps.items()}
        return problem.evaluate(shifted(problem, draw, layers, own), sample=b)

    rows = range(problem.batch_size)
    each = ({site: eps[k] for site, eps in forward.noise.items()} for k in range(forward.copies))
    if draw.share == "batch":
        moved = (shifted(problem, draw, layers, eps) for eps in each)
        return torch.stack([problem.evaluate(values, layout=forward.layout) for values in moved])
    return torch.stack([torch.cat([sample(eps, b) for b in rows]) for eps in each])
