"""The alignment law written out again, slowly, from block directions; and many runs at once for coverage."""

from __future__ import annotations

import numpy as np
from scipy import stats as sps

from gradprobe.stats._law import Fit, cross, per_seed


def slow_alignment(blocks: list[np.ndarray], g: np.ndarray, block: int) -> dict[str, float]:
    """Point values from the products of different blocks: no formula is shared with the package.

    Args:
        blocks: ``[K, D]`` for each seed.
        g: Reference.
        block: Copies in a block.
    """
    x, t, a = [], [], []
    for b in blocks:
        gram = b @ b.T
        off = gram[~np.eye(len(b), dtype=bool)]
        x.append(off.mean())  # <B_j, B_k>, j != k
        t.append(block * b.var(axis=0, ddof=1).sum())
        a.append((b @ g).mean())
    xm, tm, am, gg = np.mean(x), np.mean(t), np.mean(a), g @ g
    return {
        "ceiling": am / np.sqrt(gg * xm),
        "half_copies": tm / xm,
        "price": tm * gg / am**2,
        "gain": am / gg,
    }


def slow_jackknife(values, *parts, p=0.975):
    """Value and interval of a function of means, one loop per seed."""
    s = len(parts[0])
    rest = np.array([values(*(np.delete(x, j).mean() for x in parts)) for j in range(s)])
    value = values(*(x.mean() for x in parts))
    half = sps.t.ppf(p, s - 1) * np.sqrt((s - 1) / s * ((rest - rest.mean()) ** 2).sum())
    return value, value - half, value + half


def triple(cell, name):
    """Value, low and high of one cell of a result."""
    return tuple(float(cell[name + suffix]) for suffix in ("", "_low", "_high"))


def many_runs(rng, runs, d, seeds, blocks, block, rho, kappa, length=1.0, products=False, common=0.0) -> Fit:
    """Moments of the law of many independent runs with isotropic Gaussian noise, from the vectors.

    g = e_1, <mu, g> = ``length``; ``kappa`` is tau/|mu|^2, or tau itself where ``length`` is 0. With ``products``
    X comes from the products of seeds; ``common`` is the share of the noise that all blocks of a seed have.
    """
    mu = np.zeros(d)
    mu[:2] = length * np.array([1.0, np.sqrt(1 / rho**2 - 1)])
    tau = kappa * (mu @ mu if length else 1.0)
    total, square = np.zeros((runs, seeds, d)), np.zeros((runs, seeds))
    shared = np.sqrt(common) * rng.standard_normal(total.shape) if common else 0.0
    for _ in range(blocks):
        noise = shared + np.sqrt(1 - common) * rng.standard_normal(total.shape)
        one = noise * np.sqrt(tau / (block * d)) + mu
        total += one
        square += np.einsum("rsd,rsd->rs", one, one)
    mean = total / blocks
    sq = np.einsum("rsd,rsd->rs", mean, mean)
    a, x, t = per_seed(mean[..., 0], sq, square / blocks, np.array(float(blocks)), block)
    if products:
        x, there = cross(mean @ mean.transpose(0, 2, 1), sq, np.ones((runs, seeds), dtype=bool))
        assert there.all()
    no = np.zeros(runs, dtype=bool)
    return Fit(a, x, t, np.ones_like(a), np.full(runs, float(blocks * block)), no, no)
