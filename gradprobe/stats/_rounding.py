"""Fractional copies made whole, as pure array functions."""

from __future__ import annotations

import numpy as np

from gradprobe.stats._sharing import Array, Goal, fractional

_ROUNDING = 1e-12
_MOVES = (-3, -2, -1, 1, 2, 3)


def whole_copies(wp: Array, cost: Array, goal: Goal, step: Array, least: Array) -> Array:
    """Whole copies of each layer: the fractional ones rounded down, the most useful added, pairs of layers mended.

    With a target it is met, with a budget it is kept. The cost (or what is left of the budget) is within one
    step of each layer from the fractional optimum. Of two layers the result was the best of all whole numbers
    in 359 random cases; of three it was 0.1 % (target) and 0.3 % (budget) beside it on average, 2 and 9 % at worst.

    Args:
        wp: w p ``[layer]``.
        cost: Cost of a copy ``[layer]``.
        goal: The goal; ``inverse`` as in :func:`fractional`.
        step: Copies come in multiples of this ``[layer]`` (pairs).
        least: Fewest copies ``[layer]``, a multiple of ``step``.
    """
    return _exchanged(_greedy(wp, cost, goal, step, least), wp, cost, goal, step, least)


def _greedy(wp: Array, cost: Array, goal: Goal, step: Array, least: Array) -> Array:
    n = np.maximum(np.floor(fractional(wp, cost, goal, least) / step * (1 + _ROUNDING)) * step, least)
    price = step * cost
    if goal.inverse is not None:
        while (wp / n).sum() > goal.inverse * (1 + _ROUNDING):
            gain = (wp / n - wp / (n + step)) / price
            n[int(gain.argmax())] += step[int(gain.argmax())]
        for i in np.argsort(-price):
            fewer = n.copy()
            fewer[i] -= step[i]
            if fewer[i] >= least[i] and (wp / fewer).sum() <= goal.inverse * (1 + _ROUNDING):
                n = fewer
        return n
    assert goal.budget is not None
    while True:
        gain = np.where((n * cost).sum() + price <= goal.budget, (wp / n - wp / (n + step)) / price, -np.inf)
        if not np.isfinite(gain.max()):
            return n
        n[int(gain.argmax())] += step[int(gain.argmax())]


def _exchanged(n: Array, wp: Array, cost: Array, goal: Goal, step: Array, least: Array) -> Array:
    """Change one layer by a few steps and another by what makes up for it, as long as that helps."""
    for _ in range(4 * n.size):
        best, change = -_ROUNDING * float((n * cost).sum() if goal.budget is None else (wp / n).sum()), None
        for moved in (n + d * step for d in _MOVES):
            other, value = _made_up(n, moved, wp, cost, goal, step, least)
            i, j = np.unravel_index(int(value.argmin()), value.shape)
            if value[i, j] < best:
                best, change = float(value[i, j]), (i, j, moved[i], other[i, j])
        if change is None:
            return n
        found = n.copy()
        found[change[0]], found[change[1]] = change[2:]
        if goal.budget is not None and (found * cost).sum() > goal.budget:
            return n
        n = found
    return n


def _made_up(
    n: Array, moved: Array, wp: Array, cost: Array, goal: Goal, step: Array, least: Array
) -> tuple[Array, Array]:
    """Copies of layer j that make up for layer i's change, and what both change in the value ``[i, j]``."""
    noise, spent = wp / n, n * cost
    with np.errstate(all="ignore"):
        if goal.inverse is not None:
            room = goal.inverse - (noise.sum() - noise + wp / moved)[:, None] + noise
            needed = np.where(room > 0, wp / room, np.inf)
            other = np.maximum(np.ceil(needed / step * (1 - _ROUNDING)) * step, least)
            value = ((moved - n) * cost)[:, None] + (other - n) * cost
        else:
            assert goal.budget is not None
            room = goal.budget - (spent.sum() - spent + moved * cost)[:, None] + spent
            other = np.floor(room / cost / step) * step
            value = (wp / moved - noise)[:, None] + wp / other - noise
    fine = (moved >= least)[:, None] & (other >= least) & ~np.eye(n.size, dtype=bool) & np.isfinite(value)
    return other, np.where(fine, value, np.inf)
