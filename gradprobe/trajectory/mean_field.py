"""``field``: the fields that estimators follow on average, and where they stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from gradprobe.core.errors import UsageError, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.provenance import environment
from gradprobe.core.streams import Streams
from gradprobe.estimators.base import Estimator, Labelled, make, make_all
from gradprobe.problems.landscape import Function, find_function
from gradprobe.store.paths import GRADIENT, SEARCHED
from gradprobe.trajectory.assemble import (
    coordinate_names,
    function_attributes,
    landmarks,
    shrinks,
    sigma_of,
    surface,
)
from gradprobe.trajectory.means import Mean, gradient, mean_of
from gradprobe.trajectory.request import common_sigma
from gradprobe.trajectory.zeros import Zero, find_zeros

Array = npt.NDArray[np.float64]


@untouched_globals()
def field(
    function: str | Function | Callable[..., torch.Tensor],
    estimators: Sequence[str | Estimator] | str | Estimator = ("lr", "alr"),
    *,
    sigma: float | None = None,
    points: int = 41,
    copies: int | None = None,
    start: Sequence[float] | None = None,
    domain: Sequence[Sequence[float]] | None = None,
    minima: Sequence[Sequence[float]] | None = None,
    root_seed: int = 0,
) -> xr.Dataset:
    """Mean directions of estimators on a grid, beside the gradient, with the zeros of each.

    What an estimator follows with ever smaller steps is its mean direction, ``J(x) = E[(f(x + sigma eps) - f(x))
    score(eps)]``: for ALR the field of eq. 5, first line, whose zeros need not be the gradient's. Theorem 2 says that
    the projected recursion converges to the zero of J where there is a single one (and f is convex in each variable).

    Read-outs of a draw are integrated over the noise (a product of rules for each half of each variable's noise, so
    that signs cost no accuracy). Other estimators, and all of them on a function that
    ``vmap`` refuses, are averaged over copies.

    Args:
        function: As for :func:`descend`; of two variables.
        estimators: Names with options, or instances.
        sigma: Standard deviation of the noise of estimators given by name; their own (0.01) by default.
        points: Points of the grid along each variable.
        copies: Average over so many copies instead of integrating; 1,000 where there is nothing to integrate.
        start: As for :func:`descend`; needed for a callable.
        domain: Where; needed for a function that has no domain.
        minima: Global minima, instead of those that are known.
        root_seed: Root of all noise keys.

    Returns:
        The field: see :mod:`gradprobe.store.paths`.

    Raises:
        UsageError: More or fewer than two variables, no domain, or something unknown.

    Example:
        >>> field = gp.field("beale", "lr", points=5, copies=100)
        >>> field["field"].values.tolist(), field["minimum_position"].values.tolist()
        (['gradient', 'lr'], [[3.0, 0.5]])
    """
    found = find_function(function, start, domain, minima)
    if found.dims != 2:
        raise UsageError(f"a field is drawn for two variables, and {found.name} has {found.dims}.")
    if found.domain is None:
        raise UsageError("a field needs domain=, a low and a high end for each variable.")
    count = whole("points", points, 3)
    made = make_all(estimators, **common_sigma(sigma))
    if copies is not None:
        whole("copies", copies)
    streams = Streams(whole("root_seed", root_seed, 0), 0, "field", "cpu")
    means = [mean_of(found, item, copies, streams) for item in made]
    ds = _dataset(found, made, [gradient(found), *means], count)
    return ds.assign_attrs(copies=copies or 0, root_seed=root_seed)


def _dataset(function: Function, made: Sequence[Labelled], means: Sequence[Mean], count: int) -> xr.Dataset:
    assert function.domain is not None
    axes = [np.linspace(low, high, count) for low, high in function.domain]
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes), -1)).view(-1, 2)
    labels = [GRADIENT, *(item.label for item in made)]
    vectors, errors, zeros = [], [], []
    for label, mean in zip(labels, means, strict=True):
        vector, error = mean.on(grid)
        vectors.append(vector.view(count, count, 2).numpy())
        errors.append(error.view(count, count, 2).numpy())
        if mean.how in SEARCHED:
            zeros += [(label, zero) for zero in find_zeros(mean.at, function)]
    names = coordinate_names(2)
    dims = ("field", "y", "x", "coordinate")
    reference = make("bp")
    ds = xr.Dataset(
        {"vector": (dims, np.stack(vectors)), "error": (dims, np.stack(errors))},
        {
            "field": labels,
            "color": ("field", [reference.color, *(item.color for item in made)]),
            "sigma": ("field", [np.nan, *(sigma_of(item, function) for item in made)]),
            "shrinks": ("field", [np.nan, *(shrinks(item, function) for item in made)]),
            "how": ("field", [mean.how for mean in means]),
            "x": axes[0],
            "y": axes[1],
            "coordinate": names,
        },
    )
    ds = ds.merge(_zeros(zeros)).merge(landmarks(function, names))
    fine = surface(function, np.empty((0, 2))).rename(x="surface_x", y="surface_y")
    ds = ds.merge(fine)
    ds.attrs = function_attributes(function) | {"kind": "field"}
    ds.attrs["environment"] = json.dumps(environment())
    return ds


def _zeros(found: Sequence[tuple[str, Zero]]) -> xr.Dataset:
    positions = np.array([zero.position for _, zero in found], dtype=np.float64).reshape(len(found), 2)
    return xr.Dataset(
        {"zero_position": (("zero", "coordinate"), positions)},
        {
            "zero_field": ("zero", np.array([label for label, _ in found], dtype=str)),
            "stable": ("zero", np.array([zero.stable for _, zero in found], dtype=bool)),
            "boundary": ("zero", np.array([zero.boundary for _, zero in found], dtype=bool)),
            "coordinate": coordinate_names(2),
        },
    )
