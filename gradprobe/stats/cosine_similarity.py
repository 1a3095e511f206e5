"""Cosine similarity between estimated direction and reference."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._moments import Array, Moments, moments


def cosine_values(m: Moments) -> Array:
    """Cosines ``[estimator, part, seed, copies]``; NaN where a norm is zero."""
    with np.errstate(all="ignore"):
        value = m.dot / np.sqrt(m.sqnorm * m.reference_sqnorm())
    return np.where(m.sqnorm > 0, value, np.nan)


@register("cosine", summary="cosine similarity with the reference, per seed and number of copies")
def cosine(ds: xr.Dataset, over: Over = "layer", reference: str = "bp", scale: str = "raw") -> xr.DataArray:
    """Cosine similarity between the mean of n copies and the reference.

    cos(n) = <g_n, g> / sqrt(|g_n|^2 |g|^2), per seed; over layers or the model each of the three moments is
    summed over parameters first (the cosine of the concatenated vectors).

    The n are *nested*: g_n is the mean of the first n copies of one run. Neighbouring points share their
    noise, so the curve is smoother than one made of a fresh estimate for every n: do not compare the two.

    **Noisy reference** (a mean over K_r > 1 blocks): |g|^2 is replaced by its unbiased estimate
    G = (K_r |g|^2 - mean|R_k|^2) / (K_r - 1), averaged over seeds. The reference's noise is independent of
    the estimator's, so <g_n, g> has no bias as it is. Single cosines may then exceed 1.

    **Unit gain** (model or group): an estimator whose layers have different gains c_l = <mu, g>/|g|^2 stays
    below 1 over the model even if each layer is perfect, because the layers' lengths no longer fit together:
    gains (1, 0.5) with equal norms give 0.949. ``scale="unit-gain"`` divides each layer's direction by c_l
    before summing and so shows what is left when every layer has its own step size. c_l is estimated from the
    same seeds, at the last stored copies; its own noise is not in any interval. NaN if some layer's gain is
    not resolvably positive (its 95 % t interval over seeds reaches 0; with one seed: c_l <= 0). Layers whose
    reference is zero contribute nothing.

    **What is missing**: a layer or model is NaN in a seed that failed or is not there yet. A layer that the
    estimator *refused* is NaN itself, and for the model it is a direction of zero: its |g|^2 counts (taken
    from the estimators that serve it; a layer that nobody serves is not probed, see ``coverage``).

    Source: the summand of eq. 7 in arXiv 2403.12320v1; scale and noisy reference: alignment law, 5a and 6.

    Args:
        ds: Results.
        over: ``parameter``, ``layer`` (default: the unit in which methods differ), ``model``, or groups of layers
            (see ``alignment``).
        reference: ``bp`` (default), or another name along ``ds.reference``.
        scale: ``raw`` (default) or ``unit-gain`` (groups and model only).

    Returns:
        Cosines without unit, dims (estimator, parameter | layer | group, seed, copies); over the model
        (estimator, seed, copies). NaN where a norm is zero: the angle is undefined.

    Raises:
        UsageError: A name is unknown, or ``unit-gain`` is asked for within one layer.

    Example:
        >>> gp.stats.cosine(ds).sel(copies=100).mean("seed").to_pandas().round(2)
        layer      conv1  conv2  conv3  conv4    fc
        estimator
        lr          0.63   0.43   0.44   0.38  0.93
        alr         0.49   0.29   0.35   0.25  0.80
        es          0.77   0.27   0.13   0.09  0.28
    """
    m = moments(ds, over, reference, scale)
    return m.label(cosine_values(m), "seed", "copies", long_name="cosine similarity").rename("cosine")
