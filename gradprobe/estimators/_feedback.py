"""Layers that multiply their inputs by a matrix: their inputs cut off, or other matrices on the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gradprobe.core.hooks import Call, first_tensor, intercept, map_tensors, tensors, with_first_tensor
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Streams
from gradprobe.estimators._slopes import slopes
from gradprobe.estimators.pulling import Directions
from gradprobe.layers import rule_for
from gradprobe.layers.generic import Generic
from gradprobe.problems.problem import Problem

Feedback = Callable[[str, torch.Tensor], torch.Tensor]
"""What takes a matrix's place on the way back: a function of its parameter's name and its value."""

SCALES = ("init", "weights")


@dataclass(frozen=True)
class Place:
    """A module of the twin whose output is linear in its inputs but for a bias.

    Attributes:
        module: The module.
        rule: Its layer rule.
        matrices: Local name of each of its matrices -> name of the parameter.
    """

    module: nn.Module
    rule: Generic
    matrices: Mapping[str, str]


def matrix_places(problem: Problem) -> dict[str, Place]:
    """Path of each such module -> what is known of it."""
    found = {}
    for path, module in problem.twin.named_modules():
        own = {name: p for name, p in module._parameters.items() if p is not None}
        rule = rule_for(module) if own else None
        if rule is not None and rule.matrices and set(rule.matrices) <= set(own):
            found[path] = Place(module, rule, {n: problem.names[id(own[n])] for n in rule.matrices})
    return found


def fed_back(problem: Problem, layers: Sequence[Layer], feedback: Feedback) -> Directions:
    """The gradient with other matrices on the way back through layers that multiply their inputs by one.

    In each of their calls ``f(x; W)`` becomes ``f(x without gradient; W) + f(x; B) - its own value``: the output and
    the slopes for the layer's parameters stay, and the input gets ``B^T delta``. All else (activations, norms,
    residuals, attention's own products, cell states of an LSTM) is differentiated as it is.

    Args:
        problem: The problem.
        layers: The layers to serve.
        feedback: Gives B; asked once for each parameter.
    """
    places = matrix_places(problem)
    values, known = problem.parameters, dict[str, torch.Tensor]()

    def other(name: str) -> torch.Tensor:
        if name not in known:
            known[name] = feedback(name, values[name]).to(values[name])
        return known[name]

    def add(call: Call, output: Any) -> Any:
        place, tensor = places[call.path], first_tensor(output)
        if tensor is None or not _has_gradient(call):
            return output
        matrices = {local: other(name) for local, name in place.matrices.items()}
        back = place.rule.with_matrices(place.module, matrices, call.args, call.kwargs or {})
        return with_first_tensor(output, tensor + (back - back.detach()))

    with (
        torch.enable_grad(),
        intercept(problem.twin, each_alone(places), add, enter=without_gradient) as calls,
    ):
        calls.restart()
        return slopes(problem, layers)


def each_alone(places: Mapping[str, Place]) -> dict[str, str]:
    """The modules as :func:`intercept` takes them, each by itself."""
    return {path: path for path in places}


def without_gradient(call: Call) -> Call:
    """The call with arguments that are cut off from the graph."""
    return replace(
        call,
        args=map_tensors(torch.Tensor.detach, call.args),
        kwargs=map_tensors(torch.Tensor.detach, call.kwargs),
    )


def _has_gradient(call: Call) -> bool:
    return any(t.requires_grad for t in tensors((call.args, call.kwargs)))


def uniform(seed: int, name: str, shape: Sequence[int], bound: float) -> torch.Tensor:
    """Fixed numbers between -bound and bound with a key of their own, float64 on the CPU.

    Args:
        seed: Repetition.
        name: Whose they are.
        shape: Their shape.
        bound: The largest.
    """
    stream = Streams(seed, 0, "feedback").generator("uniform", "weights", name, 0, 0)
    return torch.from_numpy(stream.uniform(-bound, bound, tuple(shape)))


def init_size(weight: torch.Tensor) -> float:
    """Root mean square with which torch initialises a matrix of a linear layer or a convolution."""
    return 1 / math.sqrt(3 * max(weight[0].numel(), 1))


def size_of(scale: str, weight: torch.Tensor) -> float:
    """Root mean square that a feedback matrix is to have: ``"init"`` or that of the ``"weights"`` now."""
    return init_size(weight) if scale == "init" else float(weight.double().square().mean().sqrt())
