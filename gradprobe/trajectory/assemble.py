"""Walkers as a labelled dataset; the schema is that of :mod:`gradprobe.store.paths`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from gradprobe.core.provenance import environment
from gradprobe.engine.noise import Integrable
from gradprobe.estimators.base import Labelled
from gradprobe.problems.landscape import Function
from gradprobe.trajectory.request import Request
from gradprobe.trajectory.sources import function_layers, reading_of
from gradprobe.trajectory.walk import POSITION, Rules, Walked

Array = npt.NDArray[np.float64]

GRID, COARSE = 201, 61
"""Points along each axis of the surface; fewer for a function that is evaluated point by point."""

NAMES = "xyzuvw"


def path_dataset(
    request: Request,
    estimators: Sequence[Labelled],
    walked: Sequence[Walked],
    rules: Rules,
    rates: Sequence[float],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """All descents in one dataset.

    Args:
        request: What they share.
        estimators: The estimators.
        walked: What was recorded of each.
        rules: How walkers moved.
        rates: The learning rate of each.
        attrs: Further attributes.
    """
    starts, seeds, copies = len(request.starts), request.seeds, request.copies
    _, layers = function_layers(request.function)
    names = coordinate_names(request.function.dims)
    ds = xr.Dataset(
        coords={
            **estimator_coordinates(estimators, request.function),
            "start": range(starts),
            "seed": seeds,
            "step": rules.recorded,
            "coordinate": names,
        }
    )

    def stacked(pick: Any) -> Array:
        return np.stack([_over_seeds(pick(w), starts, len(seeds)) for w in walked])

    dims = ("estimator", "start", "seed")
    for name in walked[0].values:
        tail = ("step", "coordinate") if name in POSITION else ("step",)
        ds[name] = ((*dims, *tail), stacked(lambda w, name=name: w.values[name]))
    ds["diverged"] = (dims, stacked(lambda w: w.diverged))
    ds["lost"] = (dims, stacked(lambda w: w.lost))
    each = np.array([item.estimator.forwards(layers, copies) for item in estimators], dtype=np.float64)
    ds["forwards"] = (("estimator", "step"), each[:, None] * np.array(rules.recorded, dtype=np.float64))
    ds["lr"] = ("estimator", np.array(rates, dtype=np.float64))
    ds["start_position"] = (("start", "coordinate"), request.starts.numpy())
    ds = ds.merge(landmarks(request.function, names)).merge(surface(request.function, _kept(ds)))
    about = function_attributes(request.function) | {
        "kind": "path",
        "copies": copies,
        "step_rule": rules.step,
    }
    about |= {"bounds": rules.bounds or "none", "clip": rules.clip or 0.0, "decay": rules.decay}
    about |= {"root_seed": request.root_seed, "every": rules.every, "environment": json.dumps(environment())}
    ds.attrs = about | dict(attrs)
    return ds.isel(start=0, drop=True) if starts == 1 else ds


def coordinate_names(dims: int) -> list[str]:
    """x, y, z, u, v, w; x1, x2, ... where there are more."""
    return list(NAMES[:dims]) if dims <= len(NAMES) else [f"x{i + 1}" for i in range(dims)]


def estimator_coordinates(estimators: Sequence[Labelled], function: Function) -> dict[str, Any]:
    """What figures need to know of each estimator."""
    made = [item.estimator for item in estimators]
    return {
        "estimator": [item.label for item in estimators],
        "color": ("estimator", [item.color for item in estimators]),
        "target": ("estimator", [e.target for e in made]),
        "summary": ("estimator", [item.summary for item in estimators]),
        "stochastic": ("estimator", [e.stochastic for e in made]),
        "sigma": ("estimator", [sigma_of(item, function) for item in estimators]),
        "shrinks": ("estimator", [shrinks(item, function) for item in estimators]),
    }


def sigma_of(labelled: Labelled, function: Function) -> float:
    """Standard deviation of an estimator's noise on a function; NaN without."""
    read = reading_of(function, labelled)
    return np.nan if read is None or read.draw.derived else read.sigma


def shrinks(labelled: Labelled, function: Function) -> float:
    """Sigma E|eps|, to first order the length of a mean without 1/sigma relative to the gradient; NaN for others."""
    read = reading_of(function, labelled)
    if read is None or not read.readout.encodes_noise or not isinstance(read.family, Integrable):
        return np.nan
    if not read.readout.shaping.exact:
        return np.nan
    nodes, weights = read.family.half(24)
    return read.sigma * float(weights @ nodes)


def landmarks(function: Function, names: Sequence[str]) -> xr.Dataset:
    """The known minima, global ones first."""
    points = [*function.minima, *function.local_minima]
    kinds = ["global"] * len(function.minima) + ["local"] * len(function.local_minima)
    positions = np.array(points, dtype=np.float64).reshape(len(points), function.dims)
    return xr.Dataset(
        {"minimum_position": (("minimum", "coordinate"), positions)},
        {"minimum_kind": ("minimum", np.array(kinds, dtype="<U6")), "coordinate": list(names)},
    )


def function_attributes(function: Function) -> dict[str, Any]:
    """What is known of a function, as attributes that every format can hold."""
    value = np.nan if function.value is None else function.value
    return {
        "function": function.name,
        "source": function.source,
        "minimum_value": float(value),
        "domain": json.dumps(function.domain),
        "constant_input": 1,
    }


def surface(function: Function, positions: Array) -> xr.Dataset:
    """A function of two variables on a grid over its domain, or over where the walkers were.

    Args:
        function: The function.
        positions: ``[..., 2]``, finite.
    """
    if function.dims != 2:
        return xr.Dataset()
    box = function.domain or _box(function, positions.reshape(-1, 2))
    count = GRID if function.at_once else COARSE
    axes = [np.linspace(low, high, count) for low, high in box]
    x, y = np.meshgrid(*axes)
    with torch.no_grad():
        values = function.values(torch.from_numpy(np.stack([x, y], -1)))
    return xr.Dataset({"surface": (("y", "x"), values.numpy())}, {"x": axes[0], "y": axes[1]})


def _kept(ds: xr.Dataset) -> Array:
    """Positions of walkers that did not diverge."""
    return ds["position"].values[np.isnan(ds["diverged"].values)]


def _box(function: Function, positions: Array) -> list[tuple[float, float]]:
    """Where nearly all positions are, with the minima, and a tenth more on each side."""
    points = np.concatenate([[function.start], *[np.atleast_2d(p) for p in function.minima]])
    if len(positions):
        low, first, third, high = np.quantile(positions, (0.005, 0.25, 0.75, 0.995), axis=0)
        points = np.concatenate([points, [first, third]])
        room = 3 * np.ptp(points, axis=0)  # a few that fly off must not make all others a dot
        points = np.concatenate(
            [points, [np.maximum(low, points.min(0) - room), np.minimum(high, points.max(0) + room)]]
        )
    low, high = points.min(0), points.max(0)
    margin = np.maximum(0.1 * (high - low), 1e-3 * (1 + np.abs(low)))
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def _over_seeds(values: torch.Tensor, starts: int, seeds: int) -> Array:
    """``[starts * s, ...]`` as ``[starts, seeds, ...]``; a walker without noise stands for every seed."""
    split = values.numpy().reshape(starts, -1, *values.shape[1:])
    return np.broadcast_to(split, (starts, seeds, *values.shape[1:]))
