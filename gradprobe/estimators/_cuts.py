"""Objectives of each layer's own: the inputs of layers that multiply them by a matrix are cut off from the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept, tensors
from gradprobe.core.layer import Layer
from gradprobe.core.rows import Rows
from gradprobe.estimators._feedback import each_alone, matrix_places, without_gradient
from gradprobe.estimators._slopes import reached, slopes
from gradprobe.estimators.pulling import Directions
from gradprobe.layers.find import find_layers
from gradprobe.problems.problem import Problem
from gradprobe.problems.seen import Seen


@dataclass(frozen=True)
class Cut:
    """What arrives at a layer, which sees it without its graph.

    Attributes:
        layer: Name of the layer.
        matrix: Name of the parameter that multiplies it.
        tensor: What arrives, with its graph.
        axis: Axis of the samples; None if it has no row for each of them.
    """

    layer: str
    matrix: str
    tensor: torch.Tensor
    axis: int | None

    @property
    def rows(self) -> torch.Tensor:
        """``[B, features]``."""
        assert self.axis is not None
        return by_sample(self.tensor, self.axis)


Objective = Callable[[Seen, Sequence[Cut]], torch.Tensor]
Obstacle = Callable[[Seen, Cut], str]
"""Why a method has nothing to put in the place of what was cut off; empty if it has."""


def cut_slopes(problem: Problem, layers: Sequence[Layer], objective: Objective) -> Directions:
    """The gradient of an objective of the cut graph for the layers' parameters.

    What was cut off is what depends on parameters and arrives at a layer that is linear in its inputs by a matrix.
    All else is differentiated as it is: each layer learns from what arrives at those that follow, through the
    activations, norms and sums between, and the last ones from the loss.

    Args:
        problem: The problem.
        layers: The layers to serve.
        objective: Made of what the forward gave, and of what was cut off.
    """
    with _cutting(problem, layers) as cuts:
        return slopes(problem, layers, lambda seen: objective(seen, tuple(cuts)))


def cut_refusals(problem: Problem, layers: Sequence[Layer], obstacle: Obstacle) -> dict[str, str]:
    """The layers that something arrives from for which there is an obstacle -> the obstacle.

    Args:
        problem: The problem.
        layers: The layers.
        obstacle: Why nothing can take a cut's place.
    """
    reasons: list[str] = []

    def note(seen: Seen, cuts: Sequence[Cut]) -> torch.Tensor:
        reasons.extend(filter(None, (obstacle(seen, cut) for cut in cuts)))
        return seen.total.detach()

    cut_slopes(problem, layers, note)
    refused: dict[str, str] = {}
    for reason in dict.fromkeys(reasons):
        with _cutting(problem, layers) as cuts:
            hit = reached(problem, layers, partial(_arriving, cuts, obstacle, reason))
        refused |= {name: reason for name in hit - set(refused)}
    return refused


def _arriving(cuts: Sequence[Cut], obstacle: Obstacle, reason: str, seen: Seen) -> torch.Tensor:
    """Something that depends on all that arrives where there is a certain obstacle."""
    return torch.stack([cut.tensor.sum() for cut in cuts if obstacle(seen, cut) == reason]).sum()


@contextmanager
def _cutting(problem: Problem, layers: Sequence[Layer]) -> Iterator[list[Cut]]:
    """Cut the inputs of matrix layers off in every forward; yields what was cut off."""
    places = matrix_places(problem)
    known = {path: layer for layer in layers for path in layer.modules}
    if set(places) - set(known):
        every = problem.once("layers", lambda: find_layers(problem)).layers
        known = {path: layer for layer in every for path in layer.modules}
    samples = sample_rows(problem)
    cuts: list[Cut] = []

    def enter(call: Call) -> Call:
        matrices = list(places[call.path].matrices.values())
        given = [t for t in tensors((call.args, call.kwargs)) if t.is_floating_point()]
        for number, tensor in enumerate(given):
            if tensor.requires_grad:
                layer = known[call.path]
                kept = tensor.clone()  # the model may overwrite it
                matrix = matrices[min(number, len(matrices) - 1)]
                cuts.append(Cut(layer.name, matrix, kept, _axis(problem, layer, samples, tensor)))
        return without_gradient(call)

    def same(call: Call, output: Any) -> Any:
        return output

    with torch.enable_grad(), intercept(problem.twin, each_alone(places), same, enter=enter) as calls:
        calls.restart()
        yield cuts


def sample_rows(problem: Problem) -> Rows:
    """Where samples lie; where one loss is all that there is, they are the rows of the inputs."""
    return problem.rows if problem.batch_size > 1 else Rows(problem.samples)


def _axis(problem: Problem, layer: Layer, samples: Rows, tensor: torch.Tensor) -> int | None:
    """Axis of the samples in what arrives at a layer: that of its outputs, where that was found out."""
    if problem.loss_per == "copy" or not layer.activations:
        return samples.axis_of(tensor)
    fits = tensor.ndim > layer.axis and tensor.shape[layer.axis] == problem.batch_size
    return layer.axis if fits and layer.credit == "sample" else None


def by_sample(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """``[B, features]``, the features in the order of the other axes."""
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]
