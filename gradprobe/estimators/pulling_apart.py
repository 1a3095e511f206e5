"""Pulling cotangents back for each sample on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import map_tensors, tensors
from gradprobe.core.layer import Layer
from gradprobe.core.rows import Rows
from gradprobe.engine.storing import Inputs
from gradprobe.estimators.pulling import Directions, clean_inputs, close, pull
from gradprobe.layers import rule_for
from gradprobe.layers._calls import Apart
from gradprobe.problems.problem import Problem

CHUNK = 2**25
"""Bytes of the gradients of samples that are held at once, where one sample's are no more."""

Axes = Sequence[int | None]
"""Axis of the samples in each tensor among the arguments of a call; None where it has none."""


def sample_axes(inputs: Inputs, rows: Rows) -> Axes:
    """Where the samples lie in the arguments of a call."""
    return [rows.axis_of(t) for t in tensors(inputs[1:])]


def some_samples(inputs: Inputs, axes: Axes, start: int, count: int) -> Inputs:
    """The arguments of a call for consecutive samples."""
    left = iter(axes)

    def narrowed(t: torch.Tensor) -> torch.Tensor:
        axis = next(left)
        return t if axis is None else t.narrow(axis, start, count)

    path, args, kwargs = inputs
    args, kwargs = map_tensors(narrowed, (args, kwargs))
    return path, args, kwargs


def samples_at_once(layer: Layer, each: int) -> int:
    """Samples whose gradients, ``each`` for a sample, are held at once."""
    return max(CHUNK // (8 * each * max(layer.numel, 1)), 1)


def pull_apart(
    problem: Problem, layer: Layer, inputs: Inputs, axes: Axes, cotangents: torch.Tensor, encode: bool
) -> Directions:
    """Pull cotangents of one call back to the layer's parameters, for each sample on its own.

    Args:
        problem: The problem.
        layer: The layer.
        inputs: What the call saw.
        axes: Where the samples lie in it.
        cotangents: Several, ``[n, *output]``.
        encode: Whether the signs of the layer's Jacobian are used.

    Returns:
        Parameter name -> ``[B, n, *param]``.
    """
    at_once = problem.once(
        ("apart", inputs[0], encode), lambda: _agree(problem, layer, inputs, axes, cotangents, encode)
    )
    way = _at_once if at_once else _one_by_one
    return way(problem, layer, inputs, axes, cotangents, encode)


def _at_once(
    problem: Problem, layer: Layer, inputs: Inputs, axes: Axes, cotangents: torch.Tensor, encode: bool
) -> Directions:
    path, args, kwargs = inputs
    module, names = problem.twin.get_submodule(path), layer.modules[path]
    values = problem.memo(("values", path), lambda: problem.local_values(path))
    rule = rule_for(module)
    call = Apart(module, list(names), values, args, kwargs, cotangents, axes, layer.axis, encode)
    found = rule.pull_back_apart(call)
    return {full: found[name] for name, full in names.items()}


def _one_by_one(
    problem: Problem, layer: Layer, inputs: Inputs, axes: Axes, cotangents: torch.Tensor, encode: bool
) -> Directions:
    rows: dict[str, list[torch.Tensor]] = {}
    for b in range(cotangents.shape[1 + layer.axis]):
        alone = some_samples(inputs, axes, b, 1)
        mine = cotangents.narrow(1 + layer.axis, b, 1)
        each = [pull(problem, layer, alone, cotangent, encode) for cotangent in mine]
        for name in each[0]:
            rows.setdefault(name, []).append(torch.stack([found[name] for found in each]))
    return {name: torch.stack(found) for name, found in rows.items()}


def _agree(
    problem: Problem, layer: Layer, inputs: Inputs, axes: Axes, cotangents: torch.Tensor, encode: bool
) -> bool:
    """Whether all samples at once give what they give one by one, on two of them."""
    count = min(2, cotangents.shape[1 + layer.axis])
    some = some_samples(inputs, axes, 0, count)
    probe = torch.ones_like(cotangents.narrow(1 + layer.axis, 0, count)).cumsum(-1)
    try:
        found = _at_once(problem, layer, some, axes, probe, encode)
    except Exception:  # whatever torch cannot vectorise: one sample after the other is right
        return False
    looped = _one_by_one(problem, layer, some, axes, probe, encode)
    return all(close(found[name], looped[name]) for name in looped)


def check_apart(problem: Problem, layer: Layer, encode: bool) -> None:
    """Refuse a layer whose samples, run through it alone, do not add up to what the batch gives.

    Raises:
        UsageError: They do not, or it does not run on a single sample.
    """

    def adds_up() -> bool:
        inputs = clean_inputs(problem, [layer], "")[layer.name, 0]
        axes = sample_axes(inputs, Rows(problem.batch_size, layer.axis))
        dtype = problem.parameters[layer.parameters[0]].dtype
        generator = torch.Generator().manual_seed(0)
        cotangent = torch.randn(layer.outputs[0], generator=generator).to(problem.device, dtype)
        whole = pull(problem, layer, inputs, cotangent, encode)
        sums = {name: torch.zeros_like(value) for name, value in whole.items()}
        try:
            for b in range(problem.batch_size):
                alone = some_samples(inputs, axes, b, 1)
                mine = pull(problem, layer, alone, cotangent.narrow(layer.axis, b, 1), encode)
                sums = {name: total + mine[name] for name, total in sums.items()}
        except Exception:  # whatever a module makes of a single sample
            return False
        return all(close(sums[name], whole[name]) for name in whole)

    if not problem.once(("adds up", layer.name, encode), adds_up):
        raise UsageError(
            f"per_sample=True cannot tell the samples of layer {layer.name!r} apart: one by one they do not add up "
            "to the batch; leave the layer out with layers=, or probe without per_sample."
        )
