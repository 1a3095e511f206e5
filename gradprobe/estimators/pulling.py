"""Pulling cotangents of a layer's output back to its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradprobe.core.hooks import Call, intercept, map_tensors
from gradprobe.core.layer import Layer, paths
from gradprobe.core.rows import Rows, along
from gradprobe.engine.memory import bytes_of, is_out_of_memory
from gradprobe.engine.sites import Site
from gradprobe.engine.storing import Inputs
from gradprobe.layers import rule_for
from gradprobe.layers._calls import Copies
from gradprobe.layers.generic import Generic
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


def pull_copies(
    problem: Problem,
    layer: Layer,
    inputs: Sequence[Inputs],
    cotangents: torch.Tensor,
    encode: bool,
    encoded: bool = False,
) -> Directions:
    """Pull cotangents of calls that are :func:`alike` back to the layer's parameters, and add up.

    One vectorised call does it where it agrees with one call after the other.

    Args:
        problem: The problem.
        layer: The layer.
        inputs: What the n calls saw.
        cotangents: ``[n, *output]``.
        encode: Whether the signs of the layer's Jacobian are used.
        encoded: Whether the inputs are what its rule keeps for that.
    """
    calls = _Calls(problem, layer, inputs, cotangents, encode, encoded)
    if len(inputs) == 1 or type(calls.rule).pull_back is not Generic.pull_back:
        return calls.one_by_one()
    key = ("copies", calls.path, encode, repr(_frame(inputs[0])))
    return calls.at_once() if problem.once(key, calls.agree) else calls.one_by_one()


def alike(one: Inputs, other: Inputs) -> bool:
    """Whether two calls of a module differ in the numbers of their tensors at most."""
    try:
        return one[0] == other[0] and bool(_frame(one) == _frame(other))
    except (ValueError, RuntimeError):  # what cannot be compared
        return False


def _frame(inputs: Inputs) -> Any:
    """Arguments with the shape and type of each tensor in its place."""
    return map_tensors(lambda t: (tuple(t.shape), t.dtype), inputs[1:])


@dataclass(frozen=True)
class _Calls:
    """Calls that are alike, and the cotangents of their outputs; see :func:`pull_copies`."""

    problem: Problem
    layer: Layer
    inputs: Sequence[Inputs]
    cotangents: torch.Tensor
    encode: bool
    encoded: bool

    @property
    def path(self) -> str:
        """The module that is called."""
        return self.inputs[0][0]

    @property
    def rule(self) -> Generic:
        """Its rule."""
        return rule_for(self.problem.twin.get_submodule(self.path))

    def one_by_one(self) -> Directions:
        """Each call pulled back on its own."""
        sums: Directions = {}
        for mine, cotangent in zip(self.inputs, self.cotangents, strict=True):
            found = pull(self.problem, self.layer, mine, cotangent, self.encode, self.encoded)
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def at_once(self) -> Directions:
        """All of them in one vectorised call."""
        module, names = self.problem.twin.get_submodule(self.path), self.layer.modules[self.path]
        values = self.problem.memo(("values", self.path), lambda: self.problem.local_values(self.path))
        calls = [(args, kwargs) for _, args, kwargs in self.inputs]
        copies = Copies(module, list(names), values, calls, self.cotangents, self.encode and not self.encoded)
        with warnings.catch_warnings():
            # torch says that an operation has no batching rule: it is right all the same
            warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
            pulled = self.rule.pull_back_copies(copies)
        return {full: pulled[name] for name, full in names.items()}

    def agree(self) -> bool:
        """Whether two calls at once give what they give one by one."""
        probe = torch.ones_like(self.cotangents[:2]).cumsum(-1)
        two = replace(self, inputs=self.inputs[:2], cotangents=probe)
        try:
            found = two.at_once()
        except Exception as error:  # whatever torch cannot vectorise
            if is_out_of_memory(error):
                raise
            return False
        looped = two.one_by_one()
        return all(close(found[name], looped[name]) for name in looped)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two ways to a direction agree."""
    return bool((a - b).norm() <= 1e-4 * b.norm() + torch.finfo(b.dtype).tiny)


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
