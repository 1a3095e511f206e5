"""Where descents of an estimator end: at the zeros of its own field, or of the gradient?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import register
from gradprobe.stats._paths import Walkers, walkers
from gradprobe.store.paths import GRADIENT, SEARCHED, matched_fields

Array = npt.NDArray[np.float64]


@register(
    "settled", summary="share of descents that end at stable zeros of their own field, and of the gradient"
)
def settled(path: xr.Dataset, field: xr.Dataset, radius: float | None = None) -> xr.Dataset:
    """Shares of walkers whose last recorded position is near a stable zero.

    Theorem 2 of the ALR paper says that the projected recursion converges to the zero of the estimator's own mean
    field J, if there is a single one. ``own`` counts the ends near any stable zero of J, ``gradient`` those near a
    stable zero of the gradient; where two of them lie close together an end counts for both. For a projected path
    the stable points on the edge of the domain count as well. A walker that diverged is near nothing. NaN for an
    estimator whose field was sampled, or integrated without converging: its zeros were not looked for.

    Args:
        path: Result of ``gp.descend``.
        field: Result of ``gp.field`` on the same function, with the same estimators.
        radius: How near is near, in the unit of the variables; 1 % of the diagonal of the domain by default.

    Returns:
        Dataset over ``estimator``: ``own`` and ``gradient`` (shares of walkers),
        ``own_distance`` and ``gradient_distance`` (median distance of the ends to the nearest stable zero; inf if
        there is none).

    Raises:
        UsageError: It is no path or no field, or they do not belong together.
    """
    read = walkers(path, radius)
    fields = _fields(read, field)
    projected = read.path.attrs.get("bounds") == "project"
    ends = read.path["position"].isel(step=-1).transpose("estimator", "start", "seed", "coordinate")
    names = {str(f) for f in field["field"].values}
    stops = {name: _stops(field, name, projected) for name in names}
    pairs = []
    for label, name in fields.items():
        mine = ends.sel(estimator=label).values
        pairs.append((_distances(mine, stops[name]), _distances(mine, stops[GRADIENT])))
    found: dict[str, list[float]] = {}
    for own, gradient in pairs:
        for name, distances in (("own", own), ("gradient", gradient)):
            share = (distances <= read.radius).mean()
            middle = np.quantile(distances, 0.5, method="inverted_cdf")
            known = not np.isnan(distances).all()
            found.setdefault(name, []).append(float(share) if known else np.nan)
            found.setdefault(f"{name}_distance", []).append(float(middle))
    out = xr.Dataset({k: ("estimator", v) for k, v in found.items()}, {"estimator": list(fields)})
    return out.assign_attrs(function=field.attrs["function"], radius=read.radius, projected=int(projected))


def _fields(read: Walkers, field: xr.Dataset) -> dict[str, str]:
    """Estimator -> name of its field.

    Raises:
        UsageError: Path and field do not belong together, an estimator has no field, or nobody knows what is near.
    """
    fields = matched_fields(read.path, field)
    missing = [e for e in map(str, read.path["estimator"].values) if e not in fields]
    if missing:
        raise UsageError(
            f"{missing[0]} has no field; make path and field with the same estimators and sigma."
        )
    if not np.isfinite(read.radius):
        raise UsageError("without a domain nobody knows what is near; give radius=.")
    return fields


def _stops(field: xr.Dataset, label: str, projected: bool) -> Array | None:
    """Stable points of a field ``[zero, coordinate]``; None if they were not looked for."""
    if str(field["how"].sel(field=label).values) not in SEARCHED:
        return None
    mine = np.array([str(f) == label for f in field["zero_field"].values], dtype=bool)
    stable, edge = (field[k].values.astype(bool) for k in ("stable", "boundary"))
    chosen = mine & stable & (projected | ~edge)
    return np.asarray(field["zero_position"].transpose("zero", "coordinate").values[chosen], dtype=np.float64)


def _distances(ends: Array, stops: Array | None) -> Array:
    """From ends ``[start, seed, coordinate]`` to the nearest stop: NaN if stops are not known, inf if there is none.

    A walker that is nowhere is infinitely far from all.
    """
    if stops is None or not len(stops):
        return np.full(ends.shape[:-1], np.nan if stops is None else np.inf)
    distances = np.linalg.norm(ends[..., None, :] - stops, axis=-1).min(-1)
    return np.asarray(np.where(np.isnan(distances), np.inf, distances))
