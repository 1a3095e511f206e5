"""Layers that multiply their inputs by a matrix: their inputs cut off, or other matrices on the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from gradprobe.core.hooks import Call, first_tensor, intercept, map_tensors, tensors, with_first_tensor
from gradprobe.core.layer import Layer
from gradprobe.core.remembered import Remembered
from gradprobe.core.streams import Streams
from gradprobe.estimators._slopes import slopes
from gradprobe.estimators.pulling import Directions
from gradprobe.layers import rule_for
from gradprobe.layers.generic import Generic
from gradprobe.problems.problem import Problem

Feedback = Callable[[str, torch.Tensor], torch.Tensor]
"""What takes a matrix's place on the way back: a function of its parameter's name and its value."""

Back = Callable[[torch.Tensor], list[torch.Tensor]]

SCALES = ("init", "weights")

_DRAWN = Remembered()
_DRAWN.limit = 2**26
_LOCK = Lock()


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

    Each of their calls sees its inputs without their graph, so that the slopes for the layer's parameters stay, and
    its output brings ``B^T delta`` to the inputs. All else (activations, norms, residuals, attention's own products,
    cell states of an LSTM) is differentiated as it is.

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
        args, kwargs = map_tensors(torch.Tensor.detach, (call.args, dict(call.kwargs or {})))

        def back(cotangent: torch.Tensor) -> list[torch.Tensor]:
            return place.rule.error_back(place.module, matrices, args, kwargs, cotangent)

        inputs = [t for t in tensors((call.args, call.kwargs)) if t.is_floating_point()]
        return with_first_tensor(output, _Bridge.apply(back, tensor, *inputs))

    with (
        torch.enable_grad(),
        intercept(problem.twin, each_alone(places), add, enter=without_gradient) as calls,
    ):
        calls.restart()
        return slopes(problem, layers)


class _Bridge(torch.autograd.Function):
    """An output as it is, whose error also goes to the inputs by a way of its own."""

    @staticmethod
    def forward(ctx: Any, back: Back, output: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        ctx.back = back
        return output.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        (cotangent,) = cotangents
        return None, cotangent, *ctx.back(cotangent)


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
    """Fixed numbers between -bound and bound with a key of their own, float32 on the CPU.

    Args:
        seed: Repetition.
        name: Whose they are.
        shape: Their shape.
        bound: The largest.
    """

    def draw() -> torch.Tensor:
        stream = Streams(seed, 0, "feedback").generator("uniform", "weights", name, 0, 0)
        return 2 * torch.from_numpy(stream.random(tuple(shape), dtype=np.float32)) - 1

    with _LOCK:  # they never change, and a training needs them at each step
        return bound * _DRAWN.get((seed, name, tuple(shape)), draw, lambda t: t.nbytes)


def init_size(weight: torch.Tensor) -> float:
    """Root mean square with which torch initialises a matrix of a linear layer or a convolution."""
    return 1 / math.sqrt(3 * max(weight[0].numel(), 1))


def size_of(scale: str, weight: torch.Tensor) -> float:
    """Root mean square that a feedback matrix is to have: ``"init"`` or that of the ``"weights"`` now."""
    return init_size(weight) if scale == "init" else float(weight.double().square().mean().sqrt())
