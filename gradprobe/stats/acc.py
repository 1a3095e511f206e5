"""Acc.: mean cosine over a range of copies."""

from __future__ import annotations

import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._grid import trapezoid_weights, within
from gradprobe.stats._groups import Over
from gradprobe.stats._moments import moments
from gradprobe.stats.cosine_similarity import cosine_values


@register("accuracy", summary="Acc.: mean cosine over a range of copies (eq. 7)")
def accuracy(
    ds: xr.Dataset,
    copies: tuple[float, float] | None = None,
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
) -> xr.DataArray:
    """Acc., the mean over n in [n1, n2] of the cosine with the reference.

    Acc. = sum_i w_i cos(n_i), w the trapezoid weights in n with sum 1, per seed. The paper sums over every n
    and divides n2 - n1 + 1 terms by n2 - n1; with a point at every n, ours differs from the plain mean by the
    half weight of the two ends. It depends on the range: compare only at equal ranges and similar grids.

    Source: eq. 7 of arXiv 2403.12320v1.

    Args:
        ds: Results.
        copies: (n1, n2), both included; the stored points inside are used. Default: the whole stored grid.
            An estimator that ends before n2 is NaN; give a range that all have reached.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers (see ``alignment``).
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain`` (groups and model only; see ``cosine``).

    Returns:
        Acc. without unit, dims (estimator, parameter | layer | group, seed); ``attrs["range"]`` is what was used.

    Raises:
        UsageError: A name is unknown, or the range does not lie inside the stored grid.

    Example:
        >>> acc = gp.stats.accuracy(ds, copies=(50, 100))
        >>> acc.mean("seed").sel(layer="fc").to_series().round(2).to_dict()
        {'lr': 0.93, 'alr': 0.78, 'es': 0.27}
    """
    m = moments(ds, over, reference, scale)
    found = within(m.copies, copies, least=1)
    n = m.copies[found]
    values = (trapezoid_weights(n) * cosine_values(m)[..., found]).sum(-1)
    used = [int(n[0]), int(n[-1])]
    return m.label(values, "seed", long_name="Acc.", range=used).rename("accuracy")
