"""Noise or bias: what is missing from a cosine of 1, split into its causes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._intervals import Array, jackknife, t_quantile
from gradprobe.stats._law import TWO_SIDED
from gradprobe.stats._smoothed import Smoothed, check_references, smoothed, with_both
from gradprobe.stats.alignment_law import alignment
from gradprobe.stats.prediction import predict

PARTS = ("noise", "encoding", "smoothing", "noise + encoding", "encoding + smoothing", "total")
"""Three parts, sums of two that are known where the two are not, and the sum of all."""

KNOWN = ("resolved", "too few seeds")
"""States in which a quantity has a value."""

Triple = tuple[Array, Array, Array]


@register("decompose", summary="1 - cosine split into noise, bias of the encoding, and smoothing bias")
def decompose(
    ds: xr.Dataset, copies: float | Sequence[float] | None = None, over: Over = "layer", scale: str = "raw"
) -> xr.Dataset:
    """Split what n copies lack of a cosine of 1 with backprop into noise and two kinds of bias.

    With g the backprop gradient, g_s the gradient of the loss smoothed by the estimator's own noise, cos(n) the
    alignment law and rho its ceiling, all against backprop:

    ==================== ==================================== ==============================================
    part                 value                                what lowers it
    ==================== ==================================== ==============================================
    noise                rho - cos(n)                         more copies
    encoding             cos(g_s, g) - rho                    another read-out: signs, other approximations
    smoothing            1 - cos(g_s, g)                      a smaller sigma
    noise + encoding     cos(g_s, g) - cos(n)
    encoding + smoothing 1 - rho: all bias
    total                1 - cos(n)
    ==================== ==================================== ==============================================

    The parts add up to the total exactly. Each may be negative: by noise, or because errors cancel (signs that
    turn the smoothed gradient back towards backprop's). For an exact LR or ES ``encoding`` is 0 up to noise.

    cos(g_s, g) = mean <g, g_s>/sqrt(|g|^2 mean |g_s|^2) over seeds, both without bias (the reference's noise is
    independent of the estimator's; |g_s|^2 = (K_r |R|^2 - mean|R_k|^2)/(K_r - 1) from its K_r blocks). An estimator
    without noise smooths nothing. Over the model a layer that the estimator refuses adds to ``encoding``.

    **Intervals**: 95 %, jackknife over seeds of every part as one function of all means, so that what parts have
    in common cancels as it should; pointwise, for this batch. The total's is that of ``predict``.

    **Where nothing can be said** there is NaN. ``state`` is that of ``alignment`` against backprop: unless it is
    "resolved" (or "too few seeds": values without intervals), rho is not known, noise and encoding cannot be told
    apart, and only ``noise + encoding`` has a value. ``smoothed_state`` says the same of |g_s|^2: unless it is
    "resolved", encoding and smoothing cannot be told apart; "none": there is no smoothed reference (an estimator
    that is no read-out of a draw). The total is NaN where ``predict`` has no value: far beyond the run.

    cos(n) is the pooled law, so that the parts add up. The mean of measured cosines lies up to 0.002 beside it if
    the noise is spread over a thousand directions, 0.006 over thirty, 0.03 over five or along the mean itself. A
    whole model whose layers have different gains has that loss in ``encoding``; ``scale="unit-gain"`` takes it out.

    Source: alignment law, sections 3 and 6.2 (derived for this project).

    Args:
        ds: Results with both references, as ``probe(..., reference=("bp", "smoothed"))`` gives them.
        copies: n: a positive number, inside the run or beyond it, or several; default: the run's last.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers as for ``cosine``.
        scale: ``raw`` (default) or ``unit-gain`` (model and groups; see ``cosine``).

    Returns:
        Dataset ``value low high`` (cosine, without unit) over (estimator, parameter | layer | group, part), and
        ``copies`` if several were given; ``state`` and ``smoothed_state`` over (estimator, parameter | layer |
        group).

    Raises:
        UsageError: The run lacks one of the references, ``copies`` is not positive, or as ``alignment``.

    Example:
        >>> parts = gp.stats.decompose(ds)["value"].sel(layer="fc", estimator="alr")
        >>> parts.sel(part=["noise", "encoding", "smoothing", "total"]).to_series().round(2).to_dict()
        {'noise': 0.07, 'encoding': 0.12, 'smoothing': -0.0, 'total': 0.19}
    """
    check_references(ds, "decompose")
    ds = with_both(ds)
    n = int(ds["copies"].values[-1]) if copies is None else copies
    law = alignment(ds, over, "bp", scale)
    total = predict(law, n)
    means = [law[name].transpose(..., "seed").values for name in "AXTG"]
    other = smoothed(ds, over, means[0])
    like = law["exact"]
    cells = [_split(law, means, other, float(v), total, i) for i, v in enumerate(np.atleast_1d(n))]
    out = xr.Dataset(attrs=law.attrs)
    for i, name in enumerate(("value", "low", "high")):
        data = np.stack([np.stack([part[i] for part in cell], axis=-1) for cell in cells], axis=-1)
        labelled = xr.DataArray(data, dims=(*like.dims, "part", "copies"), coords=like.coords)
        labelled = labelled.assign_coords(part=list(PARTS), copies=np.atleast_1d(n))
        out[name] = labelled.isel(copies=0) if np.ndim(n) == 0 else labelled
    out["state"] = law["state"]
    out["smoothed_state"] = like.copy(data=other.state)
    return out


def _split(
    law: xr.Dataset, means: list[Array], other: Smoothed, n: float, total: xr.Dataset, index: int
) -> list[Triple]:
    """Value, low and high of every part at n copies, each ``[...]``."""
    at = total if "copies" not in total.dims else total.isel(copies=index)
    cosine, low, high = (at["cosine" + end].values for end in ("", "_low", "_high"))
    there = np.isfinite(cosine)
    ceiling = np.isin(law["state"].values, KNOWN)
    smooth = np.isin(other.state, KNOWN)
    known = (ceiling & there, ceiling & smooth, smooth, smooth & there, ceiling)
    parts = [*means, other.along, other.square]
    exact = law["exact"].values.astype(bool)
    found = [_interval(part, parts, exact, here) for part, here in zip(_functions(n), known, strict=True)]
    return [*found, (1 - cosine, 1 - high, 1 - low)]


def _functions(n: float) -> list[Callable[..., Array]]:
    """The parts but for the total, as functions of the means of (A, X, T, G, <g, g_s>, |g_s|^2)."""

    def reached(a: Array, x: Array, t: Array, g: Array) -> Array:
        return a / np.sqrt(g * (x + t / n))

    def ceiling(a: Array, x: Array, g: Array) -> Array:
        return a / np.sqrt(g * x)

    def smooth(g: Array, d: Array, u: Array) -> Array:
        return d / np.sqrt(g * u)

    return [
        lambda a, x, t, g, d, u: ceiling(a, x, g) - reached(a, x, t, g),
        lambda a, x, t, g, d, u: smooth(g, d, u) - ceiling(a, x, g),
        lambda a, x, t, g, d, u: 1 - smooth(g, d, u),
        lambda a, x, t, g, d, u: smooth(g, d, u) - reached(a, x, t, g),
        lambda a, x, t, g, d, u: 1 - ceiling(a, x, g),
    ]


def _interval(
    part: Callable[..., Array], means: list[Array], exact: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]
) -> Triple:
    """Value, low and high by the jackknife over seeds; NaN where the part is not known."""
    with np.errstate(all="ignore"):
        value, se = jackknife(part, *means)
        q = t_quantile(TWO_SIDED, np.isfinite(means[0]).sum(-1))
        half = np.where(exact, 0.0, q * se)
    value, half = (np.where(known, v, np.nan) for v in (value, half))
    return value, value - half, value + half
