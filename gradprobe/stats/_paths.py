"""From a path to arrays of walkers and back: the only place in this folder that knows a path's labels.

A **walker** is one (start, seed). Arrays are ``[estimator, start, seed, step]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats._shares import Array, Mask, first_where
from gradprobe.store.paths import DWELL, check_kind, default_radius, with_starts

DIMS = ("estimator", "start", "seed", "step")


@dataclass(frozen=True)
class Walkers:
    """What statistics need of a path.

    Attributes:
        path: The path, with a dimension ``start``.
        loss: f(x_k), +inf from the step on at which a walker diverged.
        near: Whether x_k is within the radius of a global minimum; all False if that is not known.
        diverged: Whether a walker diverged up to the last recorded step, ``[estimator, start, seed]``.
        steps: Recorded steps, ``[step]``.
        forwards: Forward evaluations, ``[estimator, step]``.
        stochastic: ``[estimator]``; the walkers of one that is not are copies of each other over seeds.
        radius: The radius used, in the unit of the variables; NaN without.
        known: Whether a global minimum and the radius are known.
    """

    path: xr.Dataset
    loss: Array
    near: Mask
    diverged: Mask
    steps: Array
    forwards: Array
    stochastic: Mask
    radius: float
    known: bool

    def first(self) -> tuple[Array, Array]:
        """First recorded step near a global minimum, and forwards spent by then; +inf for never.

        Both ``[estimator, start, seed]``.
        """
        return first_where(self.near, self.steps), first_where(self.near, self.forwards[:, None, None])

    def label(self, found: Mapping[str, npt.NDArray[Any]], dims: tuple[str, ...], **facts: Any) -> xr.Dataset:
        """Put names back.

        Args:
            found: Arrays with the axes ``dims``.
            dims: Their names.
            **facts: Attributes beyond function and radius.
        """
        coords = {k: v for k, v in self.path.coords.items() if v.dims and set(v.dims) <= set(dims)}
        facts = {"function": self.path.attrs.get("function", ""), "radius": self.radius} | facts
        return xr.Dataset({k: (dims, v) for k, v in found.items()}, coords, facts)


def walkers(path: Any, radius: float | None, need: str | None = None, stay: bool = False) -> Walkers:
    """Read a path.

    Args:
        path: What ``gp.descend`` returns.
        radius: How near a minimum counts as reached, in the unit of the variables; None: 1 % of the diagonal of
            the domain.
        need: ``"global"`` or ``"any"``: refuse a path without a known minimum of this kind, or without a radius.
        stay: Count a walker as near only from the step on from which it stays: all recorded positions from there on
            are within the radius, and these are at least the last tenth of the steps. One that passes by, or jumps
            in and out, is not near.

    Raises:
        UsageError: It is no path, has lost something, or lacks what is needed.
    """
    ds = _checked(path)
    used = _radius(ds, radius)
    kinds = [str(k) for k in ds["minimum_kind"].values] if "minimum_kind" in ds.coords else []
    if need is not None:
        _check_known(ds, used, kinds if need == "any" else [k for k in kinds if k == "global"], need)
    steps = np.asarray(ds["step"].values, dtype=np.float64)
    first_lost = _values(ds, "diverged", DIMS[:3])
    lost = steps >= first_lost[..., None]
    loss, distance = (np.where(lost, np.inf, _values(ds, k, DIMS)) for k in ("loss", "distance"))
    near = distance <= used
    if stay:
        near = np.flip(np.logical_and.accumulate(np.flip(near, -1), -1), -1)
        late = steps >= (1 - DWELL) * steps[-1]
        near &= near[..., late].all(-1, keepdims=True)
    return Walkers(
        path=ds,
        loss=loss,
        near=near,
        diverged=first_lost <= steps[-1],
        steps=steps,
        forwards=_values(ds, "forwards", ("estimator", "step")),
        stochastic=np.asarray(ds["stochastic"].values, dtype=bool),
        radius=used,
        known="global" in kinds and np.isfinite(used),
    )


def only_if(known: bool, *values: Array) -> tuple[Array, ...]:
    """The values, or NaN in their place."""
    return tuple(v if known else np.full_like(v, np.nan) for v in values)


def _checked(path: Any) -> xr.Dataset:
    """A path with all its dimensions and the variables that statistics read."""
    ds = check_kind(path, "path")
    for dim in ("estimator", "seed", "step"):
        if not ds.sizes.get(dim):
            raise UsageError(
                f"the path has nothing along the dimension {dim!r}; select with a list, path.sel({dim}=[...])."
            )
    for name in ("position", "loss", "distance", "forwards", "diverged", "stochastic"):
        if name not in ds:
            raise UsageError(f"the path has lost its {name!r}; give it as gp.descend(...) returned it.")
    return with_starts(ds)


def _values(ds: xr.Dataset, name: str, dims: tuple[str, ...]) -> Array:
    return np.asarray(ds[name].transpose(*dims).values, dtype=np.float64)


def _radius(ds: xr.Dataset, radius: float | None) -> float:
    """The radius that was given, or 1 % of the diagonal of the domain; NaN if there is no domain."""
    if radius is None:
        box = json.loads(ds.attrs.get("domain") or "null")
        return default_radius(box) if box else np.nan
    try:
        number = float(radius)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(radius, bool) or not 0 < number < np.inf:
        raise UsageError(
            f"radius must be a positive number in the unit of the function's variables, not {radius!r}."
        )
    return number


def _check_known(ds: xr.Dataset, radius: float, minima: list[str], need: str) -> None:
    name = ds.attrs.get("function") or "this function"
    if not minima:
        what = "minimum" if need == "any" else "global minimum"
        raise UsageError(
            f"no {what} of {name} is known; name the minima when descending, minima=[(x, y), ...]."
        )
    if not np.isfinite(radius):
        raise UsageError(
            f"{name} has no domain to take a radius from; say how near counts as reached, for example radius=0.1."
        )
