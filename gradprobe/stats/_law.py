"""The alignment law as pure array functions: the last axis is ``seed``.

For i.i.d. blocks with mean direction mu and per-copy variance tau,

    1/cos^2(n) = 1/rho^2 + price/n,    that is    cos(n) = rho sqrt(n / (n + kappa)),

with ceiling rho = <mu, g>/(|mu| |g|), half-power copies kappa = tau/|mu|^2, price = kappa/rho^2. Per seed
the moments at N = m K copies give unbiased estimates (m copies in a block, K blocks):

    X = (K sqnorm - block_sqnorm)/(K - 1)    of |mu|^2
    T = m (block_sqnorm - X)                 of tau
    A = dot                                  of <mu, g>

X needs blocks that are independent. Where the products P_st = <g_N^(s), g_N^(t)> of the seeds' directions are
stored, X_s is instead the pseudo-value S U - (S - 1) U_(s) of the **cross estimate** U = mean of P_st over pairs
of different seeds, U_(s) the same without seed s: their mean is U, and leaving one out gives U_(s) exactly, so
they go through every jackknife and Fieller interval as X does. U has no bias whatever the blocks of one seed
have in common, and where noise dominates its standard deviation is smaller by sqrt(S - 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradprobe.core.errors import UsageError
from gradprobe.stats._intervals import Array, jackknife, mean_se, t_quantile
from gradprobe.stats._moments import Moments

ENOUGH_SEEDS, ENOUGH_BLOCKS = 5, 20
"""Size from which on the intervals were checked; a smaller run has too little to say."""

TWO_SIDED = 0.975


@dataclass(frozen=True)
class Fit:
    """Per-seed moments of the law. A seed is NaN in all of them or in none.

    Attributes:
        a: A, ``[..., seed]``.
        x: X, ``[..., seed]``.
        t: T, ``[..., seed]``.
        g: |g|^2 without bias, ``[..., seed]``.
        copies: N, ``[...]``; 0 where nothing is stored.
        exact: No noise at all (deterministic estimator, noiseless reference), ``[...]``.
        few: Fewer than two blocks are there, ``[...]``.
        products: X comes from the products of seeds, ``[...]``; False where it is the moments'.
    """

    a: Array
    x: Array
    t: Array
    g: Array
    copies: Array
    exact: npt.NDArray[np.bool_]
    few: npt.NDArray[np.bool_]
    products: npt.NDArray[np.bool_] | bool = False

    def quantile(self, p: float) -> Array:
        """Quantile of t by the number of seeds, NaN below three; any number where there is no noise."""
        return np.where(self.exact, 1.0, t_quantile(p, np.isfinite(self.x).sum(-1)))

    def se(self, values: Array) -> tuple[Array, Array]:
        """Mean over seeds and its standard error, 0 where there is no noise."""
        mean, se, _ = mean_se(values)
        return mean, np.where(self.exact, 0.0, se)

    def interval(self, statistic: Callable[..., Array], p: float = TWO_SIDED) -> tuple[Array, Array, Array]:
        """Value, low and high of a function of the means of (A, X, T, G), by the jackknife over seeds."""
        with np.errstate(all="ignore"):
            value, se = jackknife(statistic, self.a, self.x, self.t, self.g)
            half = self.quantile(p) * np.where(self.exact, 0.0, se)
        return value, value - half, value + half

    def enough(self, block: int) -> npt.NDArray[np.bool_]:
        """Whether there are as many seeds and blocks as the intervals were checked for, ``[...]``."""
        seeds = np.isfinite(self.x).sum(-1)
        checked = (seeds >= ENOUGH_SEEDS) & (self.copies >= ENOUGH_BLOCKS * block)
        return checked | (self.exact & (seeds > 0))

    def curve(self, n: Array) -> Array:
        """The fitted law A/sqrt(G (X + T/n)) of pooled moments at n copies, ``[..., copies]``."""
        a, x, t, g = (mean_se(v)[0][..., None] for v in (self.a, self.x, self.t, self.g))
        with np.errstate(all="ignore"):
            return a / np.sqrt(g * (x + t / n))


def cosine_at(n: Array | float) -> Callable[[Array, Array, Array, Array], Array]:
    """The law at n copies as a function of (A, X, T, G)."""

    def value(a: Array, x: Array, t: Array, g: Array) -> Array:
        shape = np.shape(n) + (1,) * (np.ndim(a) - np.ndim(n))
        return a / np.sqrt(g * (x + t / np.reshape(n, shape)))

    return value


def per_seed(
    dot: Array, sqnorm: Array, block_sqnorm: Array, blocks: Array, block: int
) -> tuple[Array, Array, Array]:
    """Unbiased A, X and T of each seed.

    Args:
        dot: <g_N, g>, any shape; ``sqnorm`` and ``block_sqnorm`` alike.
        sqnorm: |g_N|^2.
        block_sqnorm: Mean of |B_k|^2.
        blocks: K, broadcastable to the same shape; at least 2.
        block: m.
    """
    with np.errstate(all="ignore"):
        x = (blocks * sqnorm - block_sqnorm) / (blocks - 1)
        return dot, x, np.maximum(block * (block_sqnorm - x), 0.0)  # below 0 only by rounding


def cross(products: Array, square: Array, kept: npt.NDArray[np.bool_]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Pseudo-values of the mean product of different seeds.

    Args:
        products: P_st, ``[..., seed, seed]``.
        square: |g_N|^2 of each seed where the law is fitted, ``[..., seed]``. It must be the diagonal of P: at
            other copies than the products' own, they say nothing.
        kept: Seeds in play, ``[..., seed]``.

    Returns:
        Values ``[..., seed]``, and where they can be had ``[...]``: three seeds, every pair stored.
    """
    pairs = kept[..., :, None] & kept[..., None, :]
    diagonal = np.diagonal(products, axis1=-2, axis2=-1)
    count = kept.sum(-1)
    there = (np.isfinite(products) | ~pairs).all((-1, -2)) & (count > 2)
    there &= (np.isclose(diagonal, square, rtol=1e-9, atol=0.0) | ~kept).all(-1)
    apart = np.where(pairs & ~np.eye(kept.shape[-1], dtype=bool), products, 0.0)
    row = apart.sum(-1)
    total, s = row.sum(-1, keepdims=True), count[..., None]
    with np.errstate(all="ignore"):
        return total / (s - 1) - (total - 2 * row) / (s - 2), there


def fit(m: Moments, copies: int | None = None, products: bool = True) -> Fit:
    """Moments of the law at the last copies that all seeds reached, or at given ones.

    T is the scatter of blocks within a seed in either case.

    Args:
        m: Moments of a run.
        copies: A stored number of copies; None: the last, for each estimator and part.
        products: Take X from the products of seeds where they are stored for these copies and seeds.

    Returns:
        Arrays ``[estimator, part, seed]``. NaN for an estimator with fewer than two blocks.

    Raises:
        UsageError: ``copies`` is not stored, or no estimator has two blocks.
    """
    index = m.last()
    if copies is not None:
        index = np.where(index >= 0, check_boundary(m.copies, copies), -1)
    n = np.where(index >= 0, m.copies[np.maximum(index, 0)], 0.0)
    blocks = n / m.block
    noisy = np.broadcast_to(m.stochastic[:, None], n.shape)
    if noisy.any() and (not m.copies.size or (copies or m.copies[-1]) < 2 * m.block):
        raise UsageError(
            f"the alignment law needs at least two blocks and {copies or int(m.copies[-1])} copies are one "
            f"block of {m.block}; use more copies, or probe with a smaller block."
        )
    dot, sq, per_block = (m.at(name, index) for name in ("dot", "sqnorm", "block_sqnorm"))
    few = noisy & (n > 0) & (blocks < 2)
    a, x, t = per_seed(dot, sq, per_block, np.where(blocks < 2, np.nan, blocks)[..., None], m.block)
    x = np.where(noisy[..., None], x, sq)
    t = np.where(noisy[..., None], t, np.where(np.isfinite(sq), 0.0, np.nan))
    once = ~noisy & m.noisy  # stored once: its seeds repeat one draw of the reference's noise
    gone = ~np.isfinite(a + x + t + m.reference)
    gone |= once[..., None] & (np.cumsum(~gone, axis=-1) > 1)
    pseudo, there = cross(m.products, sq, ~gone)
    there &= noisy & products
    x = np.where(there[..., None], pseudo, x)
    a, x, t, g = (np.where(gone, np.nan, v) for v in (a, x, t, m.reference))
    return Fit(a, x, t, g, n, ~noisy & ~m.noisy, few, there)


def check_boundary(grid: Array, copies: int) -> int:
    """Index of a stored number of copies.

    Raises:
        UsageError: It is not stored.
    """
    found = np.flatnonzero(grid == copies)
    if not found.size:
        near = int(grid[np.abs(grid - copies).argmin()])
        raise UsageError(
            f"copies={copies} is no stored block boundary; the nearest is {near} "
            f"(stored: {int(grid[0])} to {int(grid[-1])})."
        )
    return int(found[0])
