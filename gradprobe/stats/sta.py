"""Sta.: scatter of the cosine over a range of copies."""

from __future__ import annotations

import xarray as xr

from gradprobe.core.errors import unknown
from gradprobe.stats import register
from gradprobe.stats._grid import line_residual, rms, trapezoid_weights, within
from gradprobe.stats._groups import Over
from gradprobe.stats._law import fit
from gradprobe.stats._moments import moments
from gradprobe.stats.cosine_similarity import cosine_values

AROUND = ("line", "law")


@register("stability", summary="Sta.: rms residual of the cosine around a line, or around the law (eq. 8)")
def stability(
    ds: xr.Dataset,
    copies: tuple[float, float] | None = None,
    around: str = "line",
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
) -> xr.DataArray:
    """Sta., the rms residual of the cosine in [n1, n2] around a straight line in n.

    Sta. = sqrt(sum_i w_i (cos(n_i) - yhat_i)^2), w the trapezoid weights in n with sum 1 and yhat the
    least-squares line with the same weights, per seed. (The paper sums over every n and divides n2 - n1 + 1
    terms by n2 - n1.)

    A line is the wrong curve: a noiseless cosine is bent, so Sta. has a floor that is no instability
    (``stability_floor``: up to 0.086 times the ceiling on a dense grid). ``around="law"`` measures around the
    law rho sqrt(n/(n + kappa)) instead, fitted to all seeds pooled at the last copies; its floor is 0, and it
    holds a seed's offset from the others too. Ours is of *nested* estimates (prefixes of one run); a fresh
    estimate at every n scatters several times more: never compare the two.

    Source: eq. 8 of arXiv 2403.12320v1; law: alignment law, 5b and 5c.

    Args:
        ds: Results.
        copies: (n1, n2), both included, with at least 3 stored points; default: the whole stored grid. An
            estimator that ends before n2 is NaN.
        around: ``line`` (default: the paper's) or ``law``.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers (see ``alignment``).
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain`` (groups and model only; see ``cosine``).

    Returns:
        Sta. in units of the cosine, dims (estimator, parameter | layer | group, seed).

    Raises:
        UsageError: A name is unknown, the range does not lie inside the stored grid or holds fewer than 3
            points, or there are too few blocks for the law.

    Example:
        >>> sta = gp.stats.stability(ds)
        >>> sta.mean("seed").sel(layer="fc").to_series().round(2).to_dict()
        {'lr': 0.05, 'alr': 0.06, 'es': 0.02}
    """
    if around not in AROUND:
        raise unknown("around", around, AROUND)
    m = moments(ds, over, reference, scale)
    found = within(m.copies, copies, least=3)
    n = m.copies[found]
    weights = trapezoid_weights(n)
    values = cosine_values(m)[..., found]
    if around == "line":
        residual = line_residual(values, n, weights)
    else:
        residual = values - fit(m).curve(n)[..., None, :]
    extra = {"range": [int(n[0]), int(n[-1])], "around": around}
    return m.label(rms(residual, weights), "seed", long_name="Sta.", **extra).rename("stability")
