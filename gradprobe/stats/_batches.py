"""Variance of the data beside that of the copies, as pure array functions: the last axis is ``batch``.

With g_b the backprop gradient of batch b (B samples), G the gradient of unlimited data and V = E|g_b - G|^2:

    from batches alone      |G|^2 = mean of <g_b, g_c> over b != c,  V = mean |g_b|^2 - |G|^2
    from a data set's G_N   V = mean |g_b - G_N|^2 / (1 - B/N),      |G|^2 = |G_N|^2 - V B/N

The batches are parts of the N samples, drawn without replacement: E|g_b - G_N|^2 = V (1 - B/N) and
E|G_N|^2 = |G|^2 + V B/N. Both pairs are free of bias. Every quantity is computed for all batches and without each in
turn (axis ``rest``: first none left out), for the jackknife.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradprobe.stats._intervals import Array, t_quantile

LEAST = 3
"""Fewest batches for an interval."""


@dataclass(frozen=True)
class Gradients:
    """Backprop gradients of the batches, by part (layer, parameter or model).

    Attributes:
        sqnorm: |g_b|^2, ``[part, batch]``.
        product: <g_b, g_c>, ``[part, batch, batch]``; None for a single batch.
        dot: <g_b, G_N>, ``[part, batch]``; None without a data set.
        full: |G_N|^2, ``[part]``, likewise.
        share: B/N, likewise.
    """

    sqnorm: Array
    product: Array | None = None
    dot: Array | None = None
    full: Array | None = None
    share: float = 0.0


def kept(valid: npt.NDArray[np.bool_]) -> Array:
    """Weights ``[..., rest, batch]`` of the valid batches: all of them, then without each in turn."""
    count = valid.shape[-1]
    left_out = np.concatenate([np.ones((1, count)), 1 - np.eye(count)])
    return left_out * valid[..., None, :]


def mean_of(values: Array, weights: Array) -> Array:
    """Means of ``[..., batch]`` for each row of weights ``[..., rest, batch]``; NaN where a row is empty."""
    filled = np.where(np.isfinite(values), values, 0.0)
    with np.errstate(all="ignore"):
        total: Array = (weights * filled[..., None, :]).sum(-1)
        return np.asarray(total / weights.sum(-1))


def data_noise(gradients: Gradients, weights: Array) -> tuple[Array, Array]:
    """V and |G|^2, ``[..., rest]``.

    Args:
        gradients: The gradients.
        weights: ``[..., part, rest, batch]``.
    """
    square = mean_of(gradients.sqnorm, weights)
    with np.errstate(all="ignore"):
        if gradients.dot is not None and gradients.full is not None:
            full = gradients.full[:, None]
            apart = square - 2 * mean_of(gradients.dot, weights) + full
            noise = np.maximum(apart, 0.0) / (1 - gradients.share)
            return noise, full - noise * gradients.share
        count = weights.sum(-1)
        if gradients.product is None:
            return np.full_like(square, np.nan), np.full_like(square, np.nan)
        filled = np.where(np.isfinite(gradients.product), gradients.product, 0.0)
        pairs = ((weights @ filled) * weights).sum(-1) - count * square
        signal = np.where(count > 1, pairs / (count * (count - 1)), np.nan)
        return np.maximum(square - signal, 0.0), signal


def along_signal(gradients: Gradients, along: Array, along_data: Array, weights: Array) -> Array:
    """<mu_b, G> averaged over batches, ``[..., rest]``; NaN where it was not measured for each of them.

    <mu_b, G> = (<mu_b, G_N> - <mu_b, g_b> B/N) / (1 - B/N), since the batch is part of the data.

    Args:
        gradients: The gradients.
        along: <mu_b, g_b>, ``[..., batch]``.
        along_data: <mu_b, G_N>, likewise.
        weights: ``[..., rest, batch]``.
    """
    unknown = ((weights > 0) & ~np.isfinite(along_data)[..., None, :]).any(-1)
    found = (mean_of(along_data, weights) - gradients.share * mean_of(along, weights)) / (1 - gradients.share)
    return np.where(unknown, np.nan, found)


def jackknifed(values: Array, valid: npt.NDArray[np.bool_], p: float) -> tuple[Array, Array, Array]:
    """Value and ends of an interval by the delete-one-batch jackknife, with Student's t; NaN below three batches.

    Args:
        values: ``[..., rest]``.
        valid: Which batches there are, ``[..., batch]``.
        p: Quantile, e.g. 0.975.
    """
    count = valid.sum(-1).astype(np.float64)
    rest = np.where(valid, values[..., 1:], 0.0)
    with np.errstate(all="ignore"):
        centre = rest.sum(-1) / count
        square = np.where(valid, (rest - centre[..., None]) ** 2, 0.0).sum(-1)
        half = t_quantile(p, count, LEAST) * np.sqrt((count - 1) / count * square)
    return values[..., 0], values[..., 0] - half, values[..., 0] + half
