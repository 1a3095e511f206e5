"""Functions of a few variables whose landscape is known: evaluated at many points at once, or made into a problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from gradprobe.core.errors import UsageError, described
from gradprobe.problems import FUNCTIONS
from gradprobe.problems.evaluation import Way, find_way, gradients_pass
from gradprobe.problems.problem import Problem

Point = tuple[float, ...]

LAYER = "variables"
"""The one layer of a function's network."""


@dataclass(frozen=True)
class Function:
    """A function of d variables, with what is known of its landscape.

    Attributes:
        name: What to call it in results.
        function: What the user wrote: ``f(p)`` of a point ``[d]``, or ``f(x, y, ...)`` of its coordinates; it
            returns one number as a tensor.
        start: Where descents start by default, d numbers; it says how many variables there are.
        domain: Low and high end of each coordinate; None if nobody said.
        minima: All global minima.
        value: The value there.
        local_minima: Other minima, where they are known.
        source: Where function and facts are from.
        batched: Whether the function takes points ``[..., d]`` at once, as registered ones do.
        any_dims: Whether it takes any number of variables, with the same domain for each and minima on the diagonal.
    """

    name: str
    function: Callable[..., torch.Tensor]
    start: Point
    domain: tuple[tuple[float, float], ...] | None = None
    minima: tuple[Point, ...] = ()
    value: float | None = None
    local_minima: tuple[Point, ...] = ()
    source: str = ""
    batched: bool = False
    any_dims: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _point("start", self.start))
        if self.domain is not None:
            object.__setattr__(self, "domain", _box(self.domain, self.dims))
        for kind in ("minima", "local_minima"):
            points = _points(kind, getattr(self, kind), self.dims)
            object.__setattr__(self, kind, points)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the way of evaluating it, which is found again."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def dims(self) -> int:
        """Number of variables d."""
        return len(self.start)

    @property
    def at_once(self) -> bool:
        """Whether many points are evaluated in one go, not in a loop."""
        return self._way.at_once

    @cached_property
    def _way(self) -> Way:
        return find_way(self.function, self.start, self.batched)

    def values(self, points: torch.Tensor) -> torch.Tensor:
        """Values at points, all at once where the function allows it.

        Args:
            points: ``[..., d]``, float64.

        Returns:
            ``[...]``, float64. What a loop over the points would give.

        Raises:
            UsageError: The points have another number of coordinates, or the function fails at the start or does
                not return one number.
        """
        if points.shape[-1:] != (self.dims,):
            raise UsageError(f"points have shape {list(points.shape)}; the last axis must be {self.dims}.")
        if not points.numel():
            return points.new_zeros(points.shape[:-1])
        flat = points.reshape(-1, self.dims)
        return self._way.values(flat).reshape(points.shape[:-1])

    @cached_property
    def differentiable(self) -> bool:
        """Whether backprop gives the gradient: near the start it agrees with differences where these are sure."""
        return gradients_pass(self.values, self._gradient, self.start)

    def gradient(self, points: torch.Tensor) -> torch.Tensor:
        """Gradients at points ``[..., d]`` by backprop; 0 where the value does not depend on them.

        NaN if the function is not :attr:`differentiable`: it uses ``math``, ``numpy``, ``.item()`` or ``detach()``.
        """
        return self._gradient(points) if self.differentiable else torch.full_like(points, torch.nan)

    def _gradient(self, points: torch.Tensor) -> torch.Tensor:
        leaf = points.detach().clone().requires_grad_()
        with torch.enable_grad():
            values = self.values(leaf)
            if not values.requires_grad:
                return torch.zeros_like(points)
            (found,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
        return torch.zeros_like(points) if found is None else found

    def problem(self, at: Sequence[float] | None = None) -> Problem:
        """The function as a problem that any estimator serves.

        A network of one layer, whose weights ``[d, 1]`` are the variables, with the constant input 1 and the
        function of its output as the loss (ALR paper, Fig. 6). With the input 1, noise on the output is noise
        on the weights: LR is ES, ALR is AES.

        Args:
            at: Where; the start by default.

        Raises:
            UsageError: ``at`` has another number of coordinates, or the function is not finite there.
        """
        point = self.start if at is None else _point("at", at, self.dims)
        with torch.no_grad():
            value = self.values(torch.tensor(point, dtype=torch.float64)).item()
        if not math.isfinite(value):
            raise UsageError(f"{self.name} is {value} at {point}; choose a point where it is finite.")
        ones = torch.ones(1, 1, dtype=torch.float64)
        return Problem(Variables(point), (ones, ones), FunctionLoss(self), name=self.name)


class Variables(nn.Module):
    """One linear layer without bias, whose weights are the variables of a function.

    Args:
        point: Their values.
    """

    def __init__(self, point: Sequence[float]) -> None:
        super().__init__()
        self.variables = nn.Linear(1, len(point), bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.variables.weight.copy_(torch.tensor(point, dtype=torch.float64)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The variables, for each row of a constant input."""
        return self.variables(x)


class FunctionLoss(nn.Module):
    """The value of a function at each row of a network's output.

    Args:
        function: The function.
    """

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, output: torch.Tensor, target: Any) -> torch.Tensor:
        """Losses ``[B]``."""
        return self.function.values(output)

    def extra_repr(self) -> str:
        """Its name, which is part of a run's identity."""
        return self.function.name


def find_function(
    given: str | Callable[..., torch.Tensor] | Function,
    start: Sequence[float] | None = None,
    domain: Sequence[Sequence[float]] | None = None,
    minima: Sequence[Sequence[float]] | None = None,
) -> Function:
    """A registered function, or one's own with what is known of it.

    Args:
        given: A name, a callable on tensors, or a :class:`Function`.
        start: A point: it says how many variables a callable has, or a registered function that takes any number.
        domain: Low and high end of each coordinate; takes the place of what is known. A callable without a start
            gets its middle.
        minima: Global minima; takes the place of what is known.

    Raises:
        UsageError: An unknown name, no function, no start, or points of different lengths.
    """
    if isinstance(given, str):
        found = _registered(given, start)
    elif isinstance(given, Function):
        found = given
    elif callable(given) and not isinstance(given, (type, nn.Module)):
        name = getattr(given, "__name__", type(given).__name__)
        found = Function(name, given, _some_point(start, domain))
    else:
        raise UsageError(f"a function is a name or a callable on tensors, not {described(given)}.")
    changed: dict[str, Any] = {}
    if start is not None:
        changed["start"] = _point("start", start, found.dims)
    if domain is not None:
        changed["domain"] = domain
    if minima is not None:
        changed |= {"minima": minima, "value": None, "local_minima": ()}
    found = replace(found, **changed)
    return replace(found, value=_least(found)) if found.minima and found.value is None else found


def _registered(name: str, start: Any) -> Function:
    """A registered function; of as many variables as the start has, if it takes any number of them."""
    facts = dict(FUNCTIONS.entry(name).meta)
    found = Function(name, FUNCTIONS.get(name), facts.pop("start"), **facts, batched=True)
    dims = len(start) if hasattr(start, "__len__") else found.dims
    if not found.any_dims or dims == found.dims:
        return found
    minima = tuple((point[0],) * dims for point in found.minima)
    return replace(
        found, start=tuple(start), domain=facts["domain"], minima=minima, value=None, local_minima=()
    )


def _some_point(start: Any, domain: Any) -> Point:
    """The start, or the middle of the domain: it says how many variables there are.

    Raises:
        UsageError: Neither was given.
    """
    if start is not None:
        return _point("start", start)
    try:
        return tuple((float(low) + float(high)) / 2 for low, high in domain)
    except (TypeError, ValueError):
        raise UsageError(
            "a function of your own needs start=, a point such as (1.0, 2.0), or domain=, a low and a high end for "
            "each variable: they say how many variables there are."
        ) from None


def _least(function: Function) -> float:
    """The value at the global minima.

    Raises:
        UsageError: They have different values.
    """
    with torch.no_grad():
        values = function.values(torch.tensor(function.minima, dtype=torch.float64))
    if not bool((values - values[0]).abs().max() <= 1e-6 * (1 + values.abs().max())):
        raise UsageError(
            f"minima must all be global, and {function.name} is {values.tolist()} there; leave the higher ones out."
        )
    return float(values.min())


def _points(name: str, given: Any, dims: int) -> tuple[Point, ...]:
    """Points as floats.

    Raises:
        UsageError: They are no list of points.
    """
    try:
        rows = [tuple(point) for point in given]
    except TypeError:
        raise UsageError(f"{name} must be a list of points such as [(3.0, 0.5)], not {given!r}.") from None
    return tuple(_point(name, row, dims) for row in rows)


def _point(name: str, given: Any, dims: int | None = None) -> Point:
    """A point as floats.

    Raises:
        UsageError: It is none, or has another number of coordinates.
    """
    try:
        point = tuple(float(x) for x in given)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be numbers such as (1.0, 2.0), not {given!r}.") from None
    if not point or not all(math.isfinite(x) for x in point):
        raise UsageError(f"{name} must be finite numbers, not {given!r}.")
    if dims is not None and len(point) != dims:
        raise UsageError(f"{name} has {len(point)} coordinates, and the function has {dims} variables.")
    return point


def _box(given: Any, dims: int) -> tuple[tuple[float, float], ...]:
    """Low and high end of each coordinate; one pair serves all.

    Raises:
        UsageError: It is no box.
    """
    try:
        rows = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.shape == (2,):
        rows = np.tile(rows, (dims, 1))
    if rows.shape != (dims, 2) or not np.isfinite(rows).all() or not (rows[:, 0] < rows[:, 1]).all():
        raise UsageError(
            f"domain must give a low and a high end for each of the {dims} variables, such as "
            f"{[(-5.0, 5.0)] * dims}, not {given!r}."
        )
    return tuple((float(low), float(high)) for low, high in rows)
