"""Averages over a grid of copies, as pure array functions: the last axis is ``copies``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradprobe.core.errors import UsageError

Array = npt.NDArray[np.float64]


def trapezoid_weights(n: npt.ArrayLike) -> Array:
    """Weights w with sum 1 such that sum_i w_i f(n_i) is the trapezoid rule for the mean of f over n.

    Args:
        n: Increasing grid ``[copies]``; a single point has weight 1.
    """
    grid = np.asarray(n, dtype=np.float64)
    if grid.size == 1:
        return np.ones(1)
    step = np.diff(grid)
    return (np.append(step, 0.0) + np.append(0.0, step)) / (2 * (grid[-1] - grid[0]))


def line_residual(y: Array, n: npt.ArrayLike, weights: Array) -> Array:
    """Residual of y around its weighted least-squares line in n.

    Args:
        y: Values ``[..., copies]``.
        n: Grid ``[copies]``.
        weights: Weights ``[copies]`` with sum 1.

    Returns:
        Residuals ``[..., copies]``.
    """
    grid = np.asarray(n, dtype=np.float64)
    x = grid - (weights * grid).sum()
    centred = y - (weights * y).sum(-1, keepdims=True)
    slope = (weights * x * centred).sum(-1, keepdims=True) / (weights * x * x).sum()
    return centred - slope * x


def rms(y: Array, weights: Array) -> Array:
    """Weighted root mean square over the last axis."""
    return np.sqrt((weights * y * y).sum(-1))


def within(grid: Array, copies: tuple[float, float] | None, least: int) -> slice:
    """Which points of the stored grid lie in a range of copies.

    Args:
        grid: Stored numbers of copies, increasing.
        copies: (n1, n2), both included; None: the whole grid.
        least: Fewest points that the statistic needs.

    Returns:
        Slice into the grid.

    Raises:
        UsageError: The range is not (n1, n2), reaches outside the grid, or holds too few points.
    """
    first, last = int(grid[0]), int(grid[-1])
    low, high = (first, last) if copies is None else _pair(copies)
    if not first <= low <= high <= last:
        raise UsageError(
            f"copies=({low:g}, {high:g}) does not lie inside what is stored; "
            f"choose n1 <= n2 between {first} and {last}."
        )
    found = slice(int(np.searchsorted(grid, low)), int(np.searchsorted(grid, high, side="right")))
    points = found.stop - found.start
    if points < least:
        raise UsageError(
            f"copies from {low:g} to {high:g} hold {points} stored points and this statistic needs {least}; "
            f"widen the range (stored: {first} to {last} copies, {grid.size} points) or probe with a smaller "
            "block."
        )
    return found


def _pair(copies: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = copies
        return float(low), float(high)
    except (TypeError, ValueError):
        raise UsageError(
            f"copies={copies!r} is not a range; write it as copies=(first, last), for example (100, 1000)."
        ) from None
