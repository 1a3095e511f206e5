"""Tests of independent, identically distributed blocks as pure array functions.

Every contrast has mean 0 if blocks are i.i.d., whatever their distribution. Cosines are not tested: their mean
is not the law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import fdtr, stdtr  # scipy.stats takes seconds to import

from gradprobe.stats._intervals import Array, mean_se


@dataclass(frozen=True)
class Blocks:
    """What prefix moments say of single blocks.

    Attributes:
        along: a_k = <B_k, g>, ``[..., seed, K]``.
        square: |B_k|^2, ``[..., seed, K]``.
        next: c_k = <S_{k-1}, B_k> for k = 2 ... K, S the sum of the blocks before, ``[..., seed, K - 1]``.
    """

    along: Array
    square: Array
    next: Array


def single_blocks(dot: Array, sqnorm: Array, block_sqnorm: Array) -> Blocks:
    """Take prefix means apart.

    Args:
        dot: <g_k, g>, g_k the mean of the first k blocks, ``[..., seed, K]``.
        sqnorm: |g_k|^2.
        block_sqnorm: Mean of the first k |B|^2.
    """
    k = np.arange(1, dot.shape[-1] + 1, dtype=np.float64)
    along, square = (np.diff(k * x, prepend=0.0, axis=-1) for x in (dot, block_sqnorm))
    grown = np.diff(k**2 * sqnorm, axis=-1)
    return Blocks(along, square, (grown - square[..., 1:]) / 2)


def drift(x: Array) -> Array:
    """sum_k (k - mean k) x_k, ``[..., seed]``."""
    k = np.arange(x.shape[-1], dtype=np.float64)
    return (x * (k - k.mean())).sum(-1)


def intercept(c: Array) -> Array:
    """Intercept of the regression of c_k on n = k - 1 with weights 1/n: its slope is |mu|^2, ``[..., seed]``."""
    n = np.arange(1, c.shape[-1] + 1, dtype=np.float64)
    total = n.sum()
    return (total * (c / n).sum(-1) - n.size * c.sum(-1)) / (total * (1 / n).sum() - n.size**2)


def serial(a: Array) -> Array:
    """Products of neighbouring residuals over their variance, plus (K - 1)/K for the mean, ``[..., seed]``."""
    count = a.shape[-1]
    rest = a - a.mean(-1, keepdims=True)
    variance = (rest**2).sum(-1) / (count - 1)
    with np.errstate(all="ignore"):
        return (rest[..., 1:] * rest[..., :-1]).sum(-1) / variance + (count - 1) / count


def p_two_sided(x: Array) -> Array:
    """P value of the t test that the mean over seeds is 0, ``[...]``; NaN where seeds do not differ."""
    mean, se, count = mean_se(x)
    with np.errstate(all="ignore"):
        t = mean / np.where(se > 0, se, np.nan)
    return np.asarray(2 * stdtr(count - 1, -np.abs(t)), dtype=np.float64)


def p_shared(products: Array, within: Array, kept: npt.NDArray[np.bool_]) -> Array:
    """P value of the one-sided t test that seeds scatter no more than the scatter within them allows, ``[...]``.

    y_s = |g_s - mean g|^2 S/(S - 1) - tau_s/N has mean 0 if blocks are independent, whatever the mean direction.
    Two seeds share the mean: for Gaussian noise the y are correlated by 1/(S - 1)^2, which makes the variance of
    their mean (S - 1)/(S - 2) times what their own scatter says.

    Args:
        products: <g_s, g_t>, ``[..., seed, seed]``; NaN where the test cannot be made.
        within: tau_s/N, ``[..., seed]``.
        kept: Seeds in play, ``[..., seed]``.
    """
    pairs = kept[..., :, None] & kept[..., None, :]
    count = kept.sum(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        row = np.where(pairs, products, 0.0).sum(-1) / count[..., None]
        centre = np.where(kept, row, 0.0).sum(-1) / count
        apart = np.diagonal(products, axis1=-2, axis2=-1) - 2 * row + centre[..., None]
        y = np.where(kept, apart * (count / (count - 1))[..., None] - within, np.nan)
        mean, se, _ = mean_se(y)
        t = mean / np.where(se > 0, se * np.sqrt((count - 1) / (count - 2)), np.nan)
    return np.asarray(stdtr(count - 1, -t), dtype=np.float64)


def p_same_mean(a: Array) -> Array:
    """P value of F = K var_s(mean a)/mean_s(var a), two-sided, ``[...]``.

    Args:
        a: ``[..., seed, K]``; a seed is NaN in all blocks or in none.
    """
    blocks = a.shape[-1]
    _, se, count = mean_se(a.mean(-1))
    with np.errstate(all="ignore"):
        within = mean_se(a.var(-1, ddof=1))[0]
        f = blocks * count * se**2 / np.where(within > 0, within, np.nan)
        below = fdtr(count - 1, count * (blocks - 1), f)
    return np.asarray(2 * np.minimum(below, 1 - below), dtype=np.float64)


def bonferroni(p: Array, weights: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Smallest of p over its share of the false alarms, and which it was, ``[...]``.

    Args:
        p: ``[..., test]``; NaN where a test cannot be made.
        weights: Weight of each test, ``[test]``; the shares are those of the tests that can be made.
    """
    there = np.isfinite(p)
    with np.errstate(all="ignore"):
        share = there * weights / (there * weights).sum(-1, keepdims=True)
        corrected = np.where(there, p / share, np.inf)
    return np.where(there.any(-1), np.minimum(corrected.min(-1), 1.0), np.nan), corrected.argmin(-1)
