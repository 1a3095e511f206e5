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
    """p value of the t test that the mean over seeds is 0, ``[...]``; NaN where seeds do not differ."""
    mean, se, count = mean_se(x)
    with np.errstate(all="ignore"):
        t = mean / np.where(se > 0, se, np.nan)
    return np.asarray(2 * stdtr(count - 1, -np.abs(t)), dtype=np.float64)


def p_positive(x: Array) -> Array:
    """p value of the one-sided t test that the mean over seeds is not above 0, ``[...]``."""
    mean, se, count = mean_se(x)
    with np.errstate(all="ignore"):
        t = mean / np.where(se > 0, se, np.nan)
    return np.asarray(stdtr(count - 1, -t), dtype=np.float64)


def p_same_mean(a: Array) -> Array:
    """p value of F = K var_s(mean a)/mean_s(var a), two-sided, ``[...]``.

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


def holm(p: Array) -> Array:
    """p values corrected for looking at all that are not NaN (Holm 1979), same shape."""
    flat = p.ravel()
    order = np.argsort(flat)  # NaN last
    left = np.isfinite(flat).sum() - np.arange(flat.size)
    raised = np.maximum.accumulate(flat[order] * np.maximum(left, 1))
    out = np.full(flat.size, np.nan)
    out[order] = np.minimum(raised, 1.0)
    return np.where(np.isfinite(p), out.reshape(p.shape), np.nan)


def bonferroni(p: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Smallest p times the number of tests that could be made, and which it was (last axis), ``[...]``."""
    count = np.isfinite(p).sum(-1)
    filled = np.where(np.isfinite(p), p, 2.0)
    return np.where(count > 0, np.minimum(filled.min(-1) * count, 1.0), np.nan), filled.argmin(-1)
