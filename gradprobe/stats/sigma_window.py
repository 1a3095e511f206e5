"""Parts of what is missing against sigma, and the window between smoothing bias and float noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError, positive
from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import Array, jackknife, t_quantile
from gradprobe.stats._law import TWO_SIDED
from gradprobe.stats._smoothed import with_both
from gradprobe.stats.alignment_law import alignment
from gradprobe.stats.decomposition import decompose
from gradprobe.store.along import one_sweep

TOLERANCE = 0.02
"""How much of a cosine more than at the best sigma is still inside the window."""


@dataclass(frozen=True)
class _Table:
    """Which estimator is which method at which sigma: ``where[method, sigma]``, -1 where there is none."""

    methods: list[str]
    sigmas: list[float]
    where: npt.NDArray[np.int64]

    def spread(self, values: npt.NDArray[Any], nothing: Any = np.nan) -> npt.NDArray[Any]:
        """``[estimator, ...]`` as ``[method, sigma, ...]``."""
        gone = (self.where < 0).reshape(*self.where.shape, *[1] * (values.ndim - 1))
        return np.where(gone, nothing, values[self.where])


@register(
    "against_sigma",
    summary="parts of 1 - cosine against sigma, and the sigmas that cost least",
    itself=("sigma",),
)
def against_sigma(
    ds: xr.Dataset,
    copies: float | None = None,
    over: Over = "layer",
    tolerance: float = TOLERANCE,
    scale: str = "raw",
) -> xr.Dataset:
    """Lay the parts of ``decompose`` out against sigma and name the window in which least is missing.

    A large sigma costs ``smoothing``, and ``noise`` by the loss's curvature; a small one costs ``noise``, because the
    rounding of the loss is divided by sigma, and at last ``encoding``, where rounding acts alike in all copies and
    turns the mean. Between them lies the window. ``best`` is the sigma with the least total 1 - cos(n) among those
    of the run; ``excess`` is the total at a sigma less that at the best one, with a 95 % interval by the jackknife
    over seeds of both together: sigmas share their noise, so that most of it cancels. ``verdict`` of each sigma:
    "inside" (the whole interval of the excess is at most ``tolerance``), "outside" (the whole interval is above),
    else "unclear". ``window_low`` and ``window_high`` are the ends of the stretch of sigmas around the best one
    whose excess, as a value, is at most ``tolerance``; at the run's least or largest sigma the window may go on.

    The best sigma is chosen by the data: where several are equally good it is one of them by chance, and excesses are
    too large by what the luck of the choice is worth; they say how much a sigma loses, not that the best is unique.
    A sigma whose total is not known (see ``decompose``) is passed over, and it ends the window.

    Args:
        ds: Results of estimators at several sigmas, as ``sigma_sweep`` gives them, a run made by hand, or runs side
            by side along sigma (``gp.concat``).
        copies: n, one positive number, inside the run or beyond it; default: the run's last. More copies make
            noise cheap, so the window moves to smaller sigmas as n grows.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers as for ``cosine``.
        tolerance: Largest excess inside the window, in units of the cosine; default 0.02.
        scale: ``raw`` (default) or ``unit-gain`` (model and groups; see ``cosine``).

    Returns:
        Dataset: ``value low high`` over (estimator, sigma, parameter | layer, part); ``state smoothed_state verdict
        excess excess_low excess_high`` over (estimator, sigma, parameter | layer); ``best window_low window_high``
        (units of sigma) over (estimator, parameter | layer). ``estimator`` holds labels without sigma. Where one
        lacks a sigma: NaN, and "" for words.

    Raises:
        UsageError: No method has two sigmas, ``copies`` or ``tolerance`` is not positive, or as ``decompose``.
    """
    ds = one_sweep(ds)
    table = _table(ds)
    n = float(ds["copies"].values[-1]) if copies is None else positive("copies", copies)
    limit = positive("tolerance", tolerance)
    parts = decompose(ds, n, over, scale).transpose("estimator", ...)
    law = alignment(with_both(ds), over, "bp", scale).transpose("estimator", ..., "seed")
    rest = tuple(str(d) for d in law["exact"].dims[1:])
    coords = {k: v for k, v in parts.coords.items() if "estimator" not in v.dims and k != "copies"}
    coords |= {"estimator": table.methods, "sigma": table.sigmas}
    coords |= {k: ("estimator", _first(table, ds[k].values)) for k in ("color", "target") if k in ds.coords}
    out = xr.Dataset(coords=coords, attrs=law.attrs | {"copies": n, "tolerance": limit})
    for name in ("value", "low", "high"):
        out[name] = (("estimator", "sigma", *rest, "part"), table.spread(parts[name].values))
    for name in ("state", "smoothed_state"):
        out[name] = (("estimator", "sigma", *rest), table.spread(parts[name].values, ""))
    _add_window(out, [table.spread(law[k].values) for k in "AXTG"], rest, n, limit)
    return out


def _table(ds: xr.Dataset) -> _Table:
    """Which estimators differ in sigma alone."""
    if "sigma" not in ds.coords or "method" not in ds.coords:
        raise UsageError(
            "these results do not say which sigma each estimator has; open the run itself again."
        )
    sigma, method = np.atleast_1d(ds["sigma"].values), np.atleast_1d(ds["method"].values)
    known = np.isfinite(sigma)
    methods = list(dict.fromkeys(str(m) for m in method[known]))
    sigmas = sorted({float(s) for s in sigma[known]})
    where = np.full((len(methods), len(sigmas)), -1)
    for e in np.flatnonzero(known):
        where[methods.index(str(method[e])), sigmas.index(float(sigma[e]))] = e
    several = (where >= 0).sum(1) > 1
    if not several.any():
        raise UsageError(
            "no method of these results has more than one sigma; make such a run with gp.sigma_sweep(problem, "
            "['lr', 'es'], out=...)."
        )
    return _Table(methods, sigmas, where)


def _first(table: _Table, values: npt.NDArray[Any]) -> list[str]:
    """What is known of each method's first estimator in the run."""
    return [str(values[min(e for e in row if e >= 0)]) for row in table.where]


def _add_window(out: xr.Dataset, means: list[Array], rest: tuple[str, ...], n: float, limit: float) -> None:
    total = out["value"].sel(part="total").values  # [method, sigma, *rest]
    known = np.isfinite(total)
    best = np.where(known, total, np.inf).argmin(1)
    excess, low, high = _excess(means, best, n)
    fine = known & known.any(1, keepdims=True)
    excess, low, high = (np.where(fine, v, np.nan) for v in (excess, low, high))
    verdict = np.select([high <= limit, low > limit, fine], ["inside", "outside", "unclear"], default="")
    first, last = _stretch(excess <= limit, best)
    dims = ("estimator", "sigma", *rest)
    for name, value in (("excess", excess), ("excess_low", low), ("excess_high", high), ("verdict", verdict)):
        out[name] = (dims, value)
    sigmas = np.asarray(out["sigma"].values, dtype=np.float64)
    for name, at in (("best", best), ("window_low", first), ("window_high", last)):
        out[name] = (("estimator", *rest), np.where(known.any(1), sigmas[at], np.nan))


def _excess(means: list[Array], best: npt.NDArray[np.int64], n: float) -> tuple[Array, Array, Array]:
    """cos(n) at the best sigma less that at each, with interval; ``[method, sigma, *rest]``."""
    at = best[:, None, ..., None]
    pairs = [*means, *(np.broadcast_to(np.take_along_axis(v, at, axis=1), v.shape) for v in means)]
    gone = ~np.isfinite(sum(pairs[1:], pairs[0]))
    pairs = [np.where(gone, np.nan, v) for v in pairs]

    def lost(a: Array, x: Array, t: Array, g: Array, a0: Array, x0: Array, t0: Array, g0: Array) -> Array:
        return a0 / np.sqrt(g0 * (x0 + t0 / n)) - a / np.sqrt(g * (x + t / n))

    with np.errstate(all="ignore"):
        value, se = jackknife(lost, *pairs)
        half = t_quantile(TWO_SIDED, np.isfinite(pairs[0]).sum(-1)) * se
    return value, value - half, value + half


def _stretch(
    inside: npt.NDArray[np.bool_], best: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last index along axis 1 of the run of true values that holds ``best``."""
    place = np.arange(inside.shape[1]).reshape(1, -1, *[1] * (inside.ndim - 2))
    centre, size = best[:, None], inside.shape[1]
    before = np.where(~inside & (place < centre), place, -1).max(1)
    after = np.where(~inside & (place > centre), place, size).min(1)
    return before + 1, after - 1
