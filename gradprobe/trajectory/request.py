"""What was asked of a descent, checked before anything runs; each refusal is one sentence."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError, one_of, positive, unknown, whole
from gradprobe.core.streams import Streams
from gradprobe.estimators.base import Labelled, make
from gradprobe.problems.landscape import Function
from gradprobe.store.paths import default_radius
from gradprobe.trajectory.sources import make_source

STEPS = ("raw", "normalised")
BOUNDS = (None, "project")
CRITERIA = ("loss", "steps")
MOST_STARTS = 100_000


def common_sigma(given: float | None) -> dict[str, float]:
    """What a sigma for all adds to the options of estimators: nothing if none was given."""
    return {} if given is None else {"sigma": positive("sigma", given)}


@dataclass(frozen=True)
class Request:
    """What all estimators of a descent share.

    Attributes:
        function: The function.
        starts: ``[n, d]``, float64.
        seeds: The seeds.
        copies: Copies in a step.
        root_seed: Root of all noise keys.
    """

    function: Function
    starts: torch.Tensor
    seeds: list[int]
    copies: int
    root_seed: int


def find_starts(function: Function, given: Any) -> torch.Tensor:
    """Where descents start.

    Args:
        function: The function.
        given: None (its own start), a point, points ``[n, d]``, or a whole number n: the centres of n^d equal cells
            of the domain.

    Returns:
        ``[n, d]``, float64.

    Raises:
        UsageError: No point, another number of coordinates, outside the domain, or the function is not finite there.
    """
    if isinstance(given, numbers.Integral) and not isinstance(given, bool):
        return _checked(function, _grid(function, whole("start", given)))
    given = given.detach().tolist() if isinstance(given, torch.Tensor) else given
    try:
        points = torch.from_numpy(np.array(function.start if given is None else given, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"start must be a point such as {function.start}, several points, or a number of points for each "
            f"variable, not {given!r}."
        ) from None
    points = points.reshape(1, -1) if points.ndim < 2 else points
    if points.ndim != 2 or points.shape[1] != function.dims or not len(points):
        raise UsageError(
            f"start has shape {list(points.shape)}, and {function.name} has {function.dims} variables; give a point "
            f"such as {function.start}."
        )
    return _checked(function, points)


def _grid(function: Function, each: int) -> torch.Tensor:
    if function.domain is None:
        raise UsageError("a grid of starts needs domain=, a low and a high end for each variable.")
    if each**function.dims > MOST_STARTS:
        raise UsageError(f"{each} starts for each of {function.dims} variables are too many; give fewer.")
    middles = [[low + (k + 0.5) * (high - low) / each for k in range(each)] for low, high in function.domain]
    return torch.tensor(list(itertools.product(*middles)), dtype=torch.float64)


def _checked(function: Function, points: torch.Tensor) -> torch.Tensor:
    for point in points.tolist():
        if not all(map(math.isfinite, point)):
            raise UsageError(f"start {tuple(point)} is not finite; give finite numbers.")
        if function.domain and any(
            not low <= x <= high for x, (low, high) in zip(point, function.domain, strict=True)
        ):
            box = " x ".join(f"[{low:g}, {high:g}]" for low, high in function.domain)
            raise UsageError(
                f"start {tuple(point)} is outside the domain {box} of {function.name}; start inside."
            )
    if len(points.unique(dim=0)) < len(points):
        raise UsageError("a start is given twice; its walkers would be the same, number for number.")
    with torch.no_grad():
        values = function.values(points)
    for point, value in zip(points.tolist(), values.tolist(), strict=True):
        if not math.isfinite(value):
            raise UsageError(
                f"{function.name} is {value} at the start {tuple(point)}; start where it is finite."
            )
    return points


def find_rates(given: Any, estimators: Sequence[Labelled], common: Mapping[str, Any]) -> list[float] | None:
    """The learning rate of each estimator; None for ``"tuned"``.

    Args:
        given: A number, {estimator: number} with labels or as estimators were given, or ``"tuned"``.
        estimators: The estimators.
        common: Options that all of them got.

    Raises:
        UsageError: It is none of these, or an estimator has none.
    """
    if isinstance(given, str):
        if given != "tuned":
            raise UsageError(f"lr must be a number, {{estimator: number}} or 'tuned', not {given!r}.")
        return None
    if not isinstance(given, Mapping):
        return [positive("lr", given)] * len(estimators)
    labels = [item.label for item in estimators]
    by_label = {name if name in labels else _label(name, common): rate for name, rate in given.items()}
    for name in by_label:
        if name not in labels:
            raise unknown("estimator in lr", name, labels)
    missing = [label for label in labels if label not in by_label]
    if missing:
        raise UsageError(f"lr says nothing of {missing[0]!r}; add it, or give one number for all.")
    return [positive(f"lr of {label}", by_label[label]) for label in labels]


def _label(name: Any, common: Mapping[str, Any]) -> str:
    """The label of an estimator by name under common options; the name if there is none."""
    try:
        return make(name, common).label
    except UsageError:
        return str(name)


def check_sources(request: Request, estimators: Sequence[Labelled]) -> None:
    """Refuse estimators that do not serve the function, or not with so many copies.

    Raises:
        UsageError: There is one.
    """
    unit = torch.zeros(1, dtype=torch.long)
    for item in estimators:
        make_source(request.function, item, [Streams(0, 0)], request.copies, unit)


def check_options(function: Function, step: str, bounds: str | None, clip: Any, decay: Any) -> None:
    """Refuse options that no descent has.

    Raises:
        UsageError: One of them.
    """
    one_of("step", step, STEPS)
    one_of("bounds", bounds, BOUNDS)
    if bounds == "project" and function.domain is None:
        raise UsageError("bounds='project' needs domain=, a low and a high end for each variable.")
    if clip is not None:
        positive("clip", clip)
        if step == "normalised":
            raise UsageError(
                "normalised directions have length 1, so clip has no meaning; leave one of them out."
            )
    if not isinstance(decay, (int, float)) or isinstance(decay, bool) or not 0 <= decay < math.inf:
        raise UsageError(f"decay must be a number from 0 on, not {decay!r}.")


def radius_of(function: Function) -> float:
    """Within what distance of a global minimum a walker has arrived.

    Raises:
        UsageError: Nobody knows where the minima are, or how large the domain is.
    """
    if not function.minima or function.domain is None:
        raise UsageError(
            f"steps to a minimum of {function.name} need to know where it is: give minima= and domain=, or "
            "criterion='loss'."
        )
    return default_radius(function.domain)
