"""Which method for which layer, and how many copies: the optimisation behind plans, as pure array functions.

With every layer's direction rescaled to unit gain, the whole model follows

    1/cos^2 = sum_l w_l (1/rho_l^2 + p_l/n_l),    w_l = |g_l|^2 / |g|^2,

with ceiling rho, price p and n_l copies at a cost of c_l each. Given the methods, the cheapest shares are
n_l ~ sqrt(w_l p_l / c_l) (Cauchy-Schwarz), so only two sums over layers matter, S = sum sqrt(w p c) and
R = sum w/rho^2:

    target C:  cost = S^2 / (1/C^2 - R)        budget F:  1/cos^2 = R + S^2 / F.

Both are convex and increasing in (S, R), and each layer's method adds its own (a, r) to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_STEPS = 80
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Goal:
    """What a plan is for.

    Attributes:
        inverse: 1/C^2 of a target; None of a budget.
        budget: F; None of a target.
    """

    inverse: float | None = None
    budget: float | None = None

    def value(self, s: Array | float, r: Array | float) -> Array:
        """Cost of reaching the target, or 1/cos^2 within the budget, ``[...]``; infinite where it cannot be."""
        s, r = np.asarray(s, dtype=np.float64), np.asarray(r, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.inverse is None:
                assert self.budget is not None
                return r + s**2 / self.budget
            left = self.inverse - r
            return np.where(left > 0, s**2 / left, np.inf)

    def cut(self, y: float, a: Array, r: Array) -> tuple[Array, float]:
        """Lower bound of the value that is additive over layers, touching it where the multiplier is y.

        S^2/D = max_y 2 y S - y^2 D.

        Returns:
            Each layer's and method's part ``[layer, method]``, and a constant.
        """
        if self.inverse is None:
            assert self.budget is not None
            return r + 2 * y * a, -(y**2) * self.budget
        return 2 * y * a + y**2 * r, -(y**2) * self.inverse

    def multipliers(self, a: Array, r: Array) -> tuple[float, float]:
        """Smallest and largest multiplier S/D that an optimum can have."""
        least = float(a.min(1).sum())
        if self.inverse is None:
            assert self.budget is not None
            return least / self.budget, float(np.where(np.isfinite(a), a, 0.0).max(1).sum()) / self.budget
        lowest = r.min(1, keepdims=True)
        room = self.inverse - float(lowest.sum())
        s = float(np.where(r == lowest, a, np.inf).min(1).sum())
        return least / room, s**2 / room / least


def best_mapping(a: Array, r: Array, goal: Goal) -> Index | None:
    """The method of each layer that makes the goal's value least, among all mappings.

    The largest of the additive lower bounds comes first (one multiplier, golden section: it is quasi-concave). A
    mapping can beat the best one known only if its methods' reduced costs add up to less than the gap between
    the two; these few are enumerated, layer by layer, dropping those that another beats in both sums. The result is
    the optimum, not an approximation: the bound decides only how long it takes.

    Args:
        a: sqrt(w p c) ``[layer, method]``, positive; infinite where the method is no candidate.
        r: w / rho^2, likewise.
        goal: The goal.

    Returns:
        Index of the method of each layer ``[layer]``; None if no mapping reaches the target.
    """
    if goal.inverse is not None and not r.min(1).sum() < goal.inverse:
        return None
    low, high = goal.multipliers(a, r)
    tried: list[Index] = []

    def bound(log_y: float) -> float:
        part, constant = goal.cut(float(np.exp(log_y)), a, r)
        tried.append(part.argmin(1))
        return float(part.min(1).sum()) + constant

    y = float(np.exp(_highest(bound, float(np.log(low)), float(np.log(max(high, low))))))
    tried.append(r.argmin(1))
    rows = np.arange(len(a))
    values = [float(goal.value(a[rows, m].sum(), r[rows, m].sum())) for m in tried]
    found = _swapped(a, r, goal, tried[int(np.argmin(values))])
    return _enumerated(a, r, goal, y, found)


def _highest(function: object, low: float, high: float) -> float:
    """Where a quasi-concave function of one variable is highest (golden section)."""
    assert callable(function)
    ratio = (np.sqrt(5) - 1) / 2
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [function(inner[0]), function(inner[1])]
    for _ in range(_STEPS):
        if values[0] >= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - ratio * (high - low)
            values[0] = function(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + ratio * (high - low)
            values[1] = function(inner[1])
    return inner[0] if values[0] >= values[1] else inner[1]


def _swapped(a: Array, r: Array, goal: Goal, mapping: Index) -> Index:
    """Improve a mapping by changing one layer at a time, until nothing helps."""
    rows, mapping = np.arange(len(a)), mapping.copy()
    while True:
        s, t = a[rows, mapping], r[rows, mapping]
        now = float(goal.value(s.sum(), t.sum()))
        value = goal.value(s.sum() - s[:, None] + a, t.sum() - t[:, None] + r)
        layer, method = np.unravel_index(int(value.argmin()), value.shape)
        if not value[layer, method] < now * (1 - _ROUNDING):
            return mapping
        mapping[layer] = method


def _enumerated(a: Array, r: Array, goal: Goal, y: float, known: Index) -> Index:
    """The best of all mappings whose bound is below the value of a known one; that one if there is none."""
    rows = np.arange(len(a))
    part, constant = goal.cut(y, a, r)
    reduced = part - part.min(1, keepdims=True)
    best = float(goal.value(a[rows, known].sum(), r[rows, known].sum()))
    gap = best - float(part.min(1).sum()) - constant
    gap = max(gap, 0.0) + 1e-9 * abs(best)
    s, t, spent = np.zeros(1), np.zeros(1), np.zeros(1)
    choices: list[tuple[Index, Index]] = []
    for layer in range(len(a)):
        methods = np.flatnonzero(reduced[layer] <= gap)
        came, chosen = (x.ravel() for x in np.meshgrid(np.arange(s.size), methods, indexing="ij"))
        cost = spent[came] + reduced[layer, chosen]
        sums = s[came] + a[layer, chosen], t[came] + r[layer, chosen]
        kept = _undominated(*sums, cost <= gap)
        s, t, spent = sums[0][kept], sums[1][kept], cost[kept]
        choices.append((came[kept], chosen[kept]))
    if not s.size:
        return known
    values = goal.value(s, t)
    at = int(values.argmin())
    if not values[at] < best:
        return known
    mapping = np.empty(len(a), dtype=np.int64)
    for layer in range(len(a) - 1, -1, -1):
        came, chosen = choices[layer]
        mapping[layer], at = chosen[at], came[at]
    return mapping


def _undominated(s: Array, t: Array, allowed: npt.NDArray[np.bool_]) -> Index:
    """Those allowed that no other one beats in both sums."""
    candidates = np.flatnonzero(allowed)
    order = candidates[np.lexsort((t[candidates], s[candidates]))]
    lowest = np.minimum.accumulate(np.concatenate([[np.inf], t[order][:-1]]))
    return np.asarray(order[t[order] < lowest], dtype=np.int64)


def fractional(wp: Array, cost: Array, goal: Goal, least: Array) -> Array:
    """Best copies of each layer for given methods, fractional, none below ``least``.

    Args:
        wp: w p ``[layer]``, positive.
        cost: Cost of a copy ``[layer]``.
        goal: The goal; ``inverse`` is what is left for noise, 1/C^2 - R, and must be positive.
        least: Fewest copies ``[layer]``.
    """
    n, bound = np.array(least, dtype=np.float64), np.zeros(len(wp), dtype=bool)
    while not bound.all():
        free = ~bound
        s = np.sqrt(wp * cost)[free].sum()
        if goal.inverse is not None:
            factor = s / max(goal.inverse - (wp / n)[bound].sum(), 1e-300)
        else:
            assert goal.budget is not None
            factor = max(goal.budget - (n * cost)[bound].sum(), 0.0) / s
        wanted = np.sqrt(wp / cost) * factor
        short = free & (wanted < least)
        n = np.where(free, np.maximum(wanted, least), n)
        if not short.any():
            break
        bound |= short
    return n
