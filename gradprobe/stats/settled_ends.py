"""Where descents of an estimator end: at the zeros of its own field, or of the gradient?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import register
from gradprobe.stats._paths import Walkers, walkers
from gradprobe.store.paths import GRADIENT, SEARCHED, check_kind

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
    theirs = _stops(field, GRADIENT, projected)
    searched = {
        str(f): str(how) in SEARCHED
        for f, how in zip(field["field"].values, field["how"].values, strict=True)
    }
    pairs = {}
    for label, name in fields.items():
        mine = ends.sel(estimator=label).values
        own = _distances(mine, _stops(field, name, projected))
        pairs[label] = own if searched[name] else np.full_like(own, np.nan), _distances(mine, theirs)
    found: dict[str, list[float]] = {}
    for own, gradient in pairs.values():
        for name, distances in (("own", own), ("gradient", gradient)):
            share = (distances <= read.radius).mean()
            middle = np.quantile(distances, 0.5, method="inverted_cdf")
            known = not np.isnan(distances).all()
            found.setdefault(name, []).append(float(share) if known else np.nan)
            found.setdefault(f"{name}_distance", []).append(float(middle))
    out = xr.Dataset({k: ("estimator", v) for k, v in found.items()}, {"estimator": list(fields)})
    return out.assign_attrs(function=field.attrs["function"], radius=read.radius, projected=int(projected))


def _fields(read: Walkers, field: xr.Dataset) -> dict[str, str]:
    """Estimator -> name of its field; backprop follows the gradient.

    Raises:
        UsageError: Path and field do not belong together, or nobody knows what is near.
    """
    check_kind(field, "field")
    function, other = read.path.attrs.get("function"), field.attrs.get("function")
    if function != other:
        raise UsageError(
            f"the path is one on {function} and the field one of {other}; give two of the same function."
        )
    if not np.isfinite(read.radius):
        raise UsageError("without a domain nobody knows what is near; give radius=.")
    known = [str(f) for f in field["field"].values]
    labels = [str(e) for e in read.path["estimator"].values]
    fields = {e: GRADIENT if e == "bp" else e for e in labels}
    missing = [e for e, f in fields.items() if f not in known]
    if missing:
        raise UsageError(
            f"{missing[0]} has no field among {', '.join(known)}; make both with the same estimators and sigma."
        )
    return fields


def _stops(field: xr.Dataset, label: str, projected: bool) -> Array:
    """Stable points of a field ``[zero, coordinate]``."""
    mine = np.array([str(f) == label for f in field["zero_field"].values], dtype=bool)
    stable, edge = (field[k].values.astype(bool) for k in ("stable", "boundary"))
    chosen = mine & stable & (projected | ~edge)
    return np.asarray(field["zero_position"].transpose("zero", "coordinate").values[chosen], dtype=np.float64)


def _distances(ends: Array, stops: Array) -> Array:
    """From ends ``[start, seed, coordinate]`` to the nearest stop; inf for what is nowhere, or if there is none."""
    if not len(stops):
        return np.full(ends.shape[:-1], np.inf)
    distances = np.linalg.norm(ends[..., None, :] - stops, axis=-1).min(-1)
    return np.asarray(np.where(np.isnan(distances), np.inf, distances))
