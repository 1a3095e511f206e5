"""How many copies each sample of a batch gets, as pure array functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def neyman(variance: Array, total: int) -> Counts:
    """Whole copies that minimise sum v_b/n_b for a given sum of n_b, at least one each.

    n_b is proportional to sqrt(v_b) (Neyman 1934), raised to 1 where it falls below; what rounding down leaves goes
    where one more copy helps most. A variance that was estimated below 0 counts as 0. Where none is positive all get
    the same.

    Args:
        variance: v_b, ``[..., B]``.
        total: Copies in all, at least B.
    """
    weight = np.sqrt(np.maximum(variance, 0.0))
    weight = np.where(weight.sum(-1, keepdims=True) > 0, weight, 1.0)
    least = np.zeros(weight.shape, dtype=bool)
    while True:
        free = np.where(least, 0.0, weight)
        left = total - least.sum(-1, keepdims=True)
        share = np.where(least, 1.0, left * free / free.sum(-1, keepdims=True))
        below = (share < 1 - 5e-10) & ~least
        if not below.any():
            break
        least |= below
    counts = np.floor(share + 1e-9).astype(np.int64)
    helps = np.where(least, -1.0, weight**2 / (counts * (counts + 1)))
    rank = np.argsort(np.argsort(-helps, axis=-1), axis=-1)
    return counts + (rank < total - counts.sum(-1, keepdims=True))


def gaussian(losses: Array, copies: int, rng: np.random.Generator, draws: int) -> Counts:
    """The Gaussian allocator of FLOPS (arXiv 2410.05966; as its published code has it), ``[draws, B]``.

    a ~ N(mean, K) with mean the losses times a fresh random matrix of N(0, 1) (so that mean_b ~ N(0, |losses|^2),
    independent) and K_bc = exp(-(L_b - L_c)^2/2); clipped at 0, scaled to the budget and rounded down; the rest is
    spread at random.

    Args:
        losses: L_b, ``[B]``.
        copies: Copies for each sample on average.
        rng: Randomness.
        draws: How many allocations.
    """
    size = losses.size
    mean = np.linalg.norm(losses) * rng.standard_normal((draws, size))
    values, vectors = np.linalg.eigh(np.exp(-((losses[:, None] - losses) ** 2) / 2))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    a = np.maximum(mean + rng.standard_normal((draws, size)) @ root.T, 0.0)
    total = a.sum(-1, keepdims=True)
    counts = np.floor(a * copies * size / np.where(total > 0, total, 1.0)).astype(np.int64)
    return counts + _at_random(copies * size - counts.sum(-1), np.ones(size), rng)


def bernoulli(losses: Array, copies: int, rng: np.random.Generator, draws: int, probability: float) -> Counts:
    """The Bernoulli allocator of FLOPS, likewise, ``[draws, B]``.

    Each sample starts with ``copies``; one whose loss is below the batch's mean keeps only half (rounded down) with
    some probability. What that frees is shared equally among the others, and the remainder at random.

    Args:
        losses: L_b, ``[B]``.
        copies: Copies for each sample on average.
        rng: Randomness.
        draws: How many allocations.
        probability: Of halving; 0.3 in FLOPS's first epoch, 0.01 after.
    """
    halved = (losses < losses.mean()) & (rng.random((draws, losses.size)) < probability)
    counts = np.where(halved, copies // 2, copies)
    freed = copies * losses.size - counts.sum(-1)
    others = np.maximum((~halved).sum(-1), 1)
    counts = counts + np.where(halved, 0, (freed // others)[:, None])
    left = copies * losses.size - counts.sum(-1)
    return counts + _at_random(left, ~halved, rng)


def _at_random(left: Counts, allowed: npt.NDArray[np.generic], rng: np.random.Generator) -> Counts:
    """``left`` copies ``[draws]``, each given to one of the allowed samples at random."""
    chance = np.broadcast_to(allowed, (left.size, allowed.shape[-1])).astype(np.float64)
    return rng.multinomial(left, chance / chance.sum(-1, keepdims=True)).astype(np.int64)
