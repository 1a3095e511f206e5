"""Pulling cotangents of a layer's output back to its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept, map_tensors
from gradprobe.core.layer import Layer, paths
from gradprobe.core.rows import Rows, along
from gradprobe.engine.memory import bytes_of
from gradprobe.engine.sites import Site
from gradprobe.engine.storing import Inputs
from gradprobe.layers import rule_for
from gradprobe.problems.problem import Problem

Directions = dict[str, torch.Tensor]
"""Parameter name -> direction ``[*param]``."""


def cleared(inputs: Inputs, kept: torch.Tensor, rows: Rows) -> Inputs:
    """The inputs with 0 for copies that are left out: their cotangent is 0, and 0 x inf would not be.

    Args:
        inputs: What a call saw.
        kept: Which copies count ``[n]``.
        rows: Where the samples of all copies lie in it.
    """
    if bool(kept.all()):
        return inputs
    mask = kept.repeat_interleave(rows.size // len(kept))

    def clear(t: torch.Tensor) -> torch.Tensor:
        if not t.is_floating_point():
            return t
        if len(kept) == 1:
            return torch.zeros_like(t)
        axis = rows.axis_of(t)
        return t if axis is None else torch.where(along(mask, axis, t.ndim), t, 0.0)

    path, args, kwargs = inputs
    return path, map_tensors(clear, args), map_tensors(clear, kwargs)


def credit(problem: Problem, layer: Layer, centred: torch.Tensor) -> torch.Tensor:
    """The factor of each sample's cotangent ``[m, B]``: w_b times its own loss, or ``[m]``: the copy's loss."""
    if centred.ndim == 1:
        return centred
    assert problem.weights is not None
    return centred * problem.weights if layer.credit == "sample" else problem.total(centred)


def pull(
    problem: Problem,
    layer: Layer,
    inputs: Inputs,
    cotangent: torch.Tensor,
    encode: bool,
    encoded: bool = False,
) -> Directions:
    """Pull a cotangent of one call back to the layer's parameters.

    Args:
        problem: The problem.
        layer: The layer.
        inputs: What the call saw.
        cotangent: Shape of its output.
        encode: Whether the signs of the layer's Jacobian are used.
        encoded: Whether the inputs are what its rule keeps for that.
    """
    path, args, kwargs = inputs
    module = problem.twin.get_submodule(path)
    names = layer.modules[path]
    values = problem.memo(("values", path), lambda: problem.local_values(path))
    rule = rule_for(module)
    if encoded:
        pulled = rule.pull_back_kept(module, list(names), values, args, kwargs, cotangent)
    else:
        pulled = rule.pull_back(module, list(names), values, args, kwargs, cotangent, encode)
    return {full: pulled[name] for name, full in names.items()}


def clean_inputs(
    problem: Problem, layers: Sequence[Layer], layout: str, every: bool = False
) -> dict[Site, Inputs]:
    """Inputs of each layer's first call in a forward without noise; of ``every`` call where all see clean inputs."""

    def wanted(call: Call) -> bool:
        return every or call.number == 0

    def compute() -> dict[Site, Any]:
        seen: dict[Site, Any] = {}

        def note(call: Call, output: Any) -> Any:
            if wanted(call):
                seen[call.layer, call.number] = (call.path, call.args, call.kwargs)
            return output

        with torch.no_grad(), intercept(problem.twin, paths(layers), note, wanted) as calls:
            calls.restart()
            problem.evaluate(layout=layout)
        return seen

    names = tuple(layer.name for layer in layers)
    return problem.memo(("inputs", layout, names, every), compute, lambda seen: bytes_of(list(seen.values())))
