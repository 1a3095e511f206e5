"""From offers and a goal to a method and copies for each layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradprobe.core.errors import UsageError
from gradprobe.stats._offers import Offers
from gradprobe.stats._rounding import whole_copies
from gradprobe.stats._sharing import Array, Goal, Index, best_mapping

Mask = npt.NDArray[np.bool_]
_HALVINGS = 60


@dataclass(frozen=True)
class Planner:
    """Finds copies for a goal.

    Attributes:
        offers: What methods offer.
        goal: The goal.
        every_layer: Whether each layer has to reach the cosine by itself.
    """

    offers: Offers
    goal: Goal
    every_layer: bool

    def noise(self, mapping: Index) -> Array:
        """Noise of one copy of each layer, w p ``[layer]``."""
        return self._pick(self.offers.price, mapping) * self.offers.weight

    def floor(self, mapping: Index) -> float:
        """R: the whole model's 1/cos^2 with endlessly many copies."""
        return float((self._pick(self.offers.inverse, mapping) * self.offers.weight).sum())

    def cost(self, mapping: Index, copies: Array) -> float:
        """Cost of one whole estimate."""
        return float((self._pick(self.offers.cost, mapping) * copies).sum())

    def inverse(self, mapping: Index, copies: Array) -> float:
        """1/cos^2 of the whole model, or of its worst layer."""
        if self.every_layer:
            price = self._pick(self.offers.price, mapping)
            return float((self._pick(self.offers.inverse, mapping) + price / copies).max())
        return self.floor(mapping) + float((self.noise(mapping) / copies).sum())

    def best(self, allowed: Mask) -> tuple[Index, Array, float] | None:
        """The best mapping of methods to layers, its copies, and the bound that no plan passes.

        Args:
            allowed: Which methods may be mixed in which layers ``[method, layer]``; each layer has one.

        Returns:
            None if the goal cannot be reached. The bound is a cost of a target, and a 1/cos^2 of a budget.
        """
        if self.every_layer:
            return self._best_each(allowed)
        w, o = self.offers.weight, self.offers
        a = np.where(allowed, np.sqrt(w * o.price * np.where(allowed, o.cost, 1.0)), np.inf).T
        r = np.where(allowed, w * np.where(allowed, o.inverse, 1.0), np.inf).T
        mapping = best_mapping(a, r, self.goal)
        if mapping is None:
            return None
        rows = np.arange(len(mapping))
        bound = float(self.goal.value(a[rows, mapping].sum(), r[rows, mapping].sum()))
        copies = self.shares(mapping)
        if copies is None:  # a budget so small that only the cheapest methods fit
            mapping = np.where(allowed, o.cost * o.least[:, None], np.inf).argmin(0)
            copies = self.shares(mapping)
        return None if copies is None else (mapping, copies, bound)

    def shares(self, mapping: Index) -> Array | None:
        """Best whole copies of given methods; None if they cannot reach the goal."""
        if self.every_layer:
            return self._shares_each(mapping)
        goal = self._left(mapping)
        cost, least = self._pick(self.offers.cost, mapping), self.offers.least[mapping]
        if goal is None or (goal.budget is not None and (cost * least).sum() > goal.budget):
            return None
        return whole_copies(self.noise(mapping), cost, goal, self.offers.step[mapping], least)

    def equal(self, mapping: Index) -> Array | None:
        """The same whole copies in every layer; None if they cannot reach the goal."""
        step, least = self.offers.step[mapping].max(), self.offers.least[mapping].max()
        if self.goal.budget is not None:
            once = self.cost(mapping, np.ones(len(mapping)))
            n = np.floor(self.goal.budget / once / step * (1 + 1e-12)) * step
            return np.full(len(mapping), n) if n >= least else None
        if self.every_layer:
            copies = self._shares_each(mapping)
            return None if copies is None else np.full(len(mapping), copies.max())
        goal = self._left(mapping)
        if goal is None or goal.inverse is None:
            return None
        n = np.ceil(self.noise(mapping).sum() / goal.inverse / step * (1 - 1e-12)) * step
        return np.full(len(mapping), max(n, least))

    def _left(self, mapping: Index) -> Goal | None:
        """The goal with 1/C^2 - R, what is left for noise; None if nothing is."""
        if self.goal.inverse is None:
            return self.goal
        left = self.goal.inverse - self.floor(mapping)
        return Goal(inverse=left) if left > 0 else None

    def _pick(self, values: Array, mapping: Index) -> Array:
        return np.asarray(values[mapping, np.arange(len(mapping))])

    def _needed(self, inverse: float) -> Array:
        """Whole copies with which each method reaches 1/C^2 in each layer ``[method, layer]``; infinite if never."""
        o = self.offers
        with np.errstate(all="ignore"):
            n = np.where(inverse > o.inverse, o.price / (inverse - o.inverse), np.inf)
        step = o.step[:, None]
        return np.maximum(np.ceil(n / step * (1 - 1e-12)) * step, o.least[:, None])

    def _shares_each(self, mapping: Index) -> Array | None:
        one = np.zeros(self.offers.usable.shape, dtype=bool)
        one[mapping, np.arange(len(mapping))] = True
        found = self._best_each(one)
        return None if found is None else found[1]

    def _best_each(self, allowed: Mask) -> tuple[Index, Array, float] | None:
        """Each layer by itself: with a target the cheapest method, with a budget the highest common cosine."""
        o, rows = self.offers, np.arange(len(self.offers.layers))

        def at(inverse: float) -> tuple[Index, Array, float]:
            needed = self._needed(inverse)
            with np.errstate(invalid="ignore"):  # nothing times infinity, of a draw booked on another layer
                cost = np.where(allowed & np.isfinite(needed), o.cost * needed, np.inf)
            mapping = cost.argmin(0)
            return mapping, needed[mapping, rows], float(cost[mapping, rows].sum())

        if self.goal.inverse is not None:
            mapping, copies, total = at(self.goal.inverse)
            return (mapping, copies, total) if np.isfinite(total) else None
        assert self.goal.budget is not None
        low, high = float(np.where(allowed, o.inverse, np.inf).min(0).max()), 1e18
        if at(high)[2] > self.goal.budget:
            return None
        for _ in range(3 * _HALVINGS):
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if at(middle)[2] <= self.goal.budget else (middle, high)
        mapping, copies, _ = at(high)
        return mapping, copies, high


def together(planner: Planner, method: int) -> Index:
    """One method in all layers."""
    return np.full(len(planner.offers.layers), method, dtype=np.int64)


def solve(planner: Planner, allowed: Mask) -> tuple[Index, Array, float]:
    """The best of all mappings of methods that can be mixed, and of the methods that serve all layers at once.

    Raises:
        UsageError: Some layer has no method, or the goal cannot be reached.
    """
    o = planner.offers
    mixed = allowed & ~o.whole[:, None]
    candidates = [planner.best(mixed)] if mixed.any(0).all() else []
    for method in np.flatnonzero(o.whole & allowed.all(1)):
        mapping = together(planner, int(method))
        copies = planner.equal(mapping)
        if copies is not None:
            candidates.append((mapping, copies, _whole_bound(planner, mapping, copies)))
    found = [c for c in candidates if c is not None]
    if not found:
        raise _out_of_reach(planner, allowed, mixed)
    target = planner.goal.inverse is not None
    best = min(found, key=lambda c: planner.cost(*c[:2]) if target else planner.inverse(*c[:2]))
    return best[0], best[1], min(c[2] for c in found)


def _whole_bound(planner: Planner, mapping: Index, copies: Array) -> float:
    """Cost or 1/cos^2 of a draw that serves all layers, with fractional copies."""
    once = planner.cost(mapping, np.ones(len(mapping)))
    methods = len(planner.offers.methods)
    relaxed = replace(planner.offers, step=np.full(methods, 1e-9), least=np.zeros(methods))
    n = replace(planner, offers=relaxed).equal(mapping)
    assert n is not None
    return float(n[0]) * once if planner.goal.inverse is not None else planner.inverse(mapping, n)


def _out_of_reach(planner: Planner, allowed: Mask, mixed: Mask) -> UsageError:
    """Why no plan reaches the goal, with what can be reached."""
    o = planner.offers
    empty = np.flatnonzero(~allowed.any(0))
    if empty.size:
        layer = int(empty[0])
        tried = [f"{o.methods[m]}: {o.why[m, layer]}" for m in range(len(o.methods)) if o.why[m, layer]]
        return UsageError(
            f"layer {o.layers[layer]!r} cannot be planned ({'; '.join(tried)}); probe more copies, seeds or methods, "
            "or leave the layer out."
        )
    options = [mixed] if mixed.any(0).all() else []
    for method in np.flatnonzero(o.whole & allowed.all(1)):
        one = np.zeros_like(allowed)
        one[method] = True
        options.append(one)
    if not options:
        return UsageError(
            "no method serves every layer, and methods whose one draw serves all layers cannot be mixed; probe "
            "layer-wise methods too."
        )
    if planner.goal.budget is not None:
        least = min(float(np.where(x, o.cost * o.least[:, None], np.inf).min(0).sum()) for x in options)
        return UsageError(
            f"a budget of {planner.goal.budget:g} is too small: one estimate with the fewest copies in every layer "
            f"costs {least:.6g}."
        )
    assert planner.goal.inverse is not None
    wanted = planner.goal.inverse**-0.5
    picked = [np.where(x, o.inverse, np.inf).argmin(0) for x in options]
    rows = np.arange(len(o.layers))
    floors = [
        planner.floor(x) if not planner.every_layer else float(o.inverse[x, rows].max()) for x in picked
    ]
    mapping = picked[int(np.argmin(floors))]
    where, here = "", mapping
    if planner.every_layer:
        layer = int(o.inverse[mapping, rows].argmax())
        where, rows, here = (
            f" in layer {o.layers[layer]!r}",
            rows[layer : layer + 1],
            mapping[layer : layer + 1],
        )
    ceiling = min(floors) ** -0.5
    if (o.fixed[here, rows] > 1).any():
        return UsageError(
            f"no plan for a cosine of {wanted:.6g} is certain{where}: all that is known is that these methods "
            f"get to {ceiling:.4f} at least; probe more copies or seeds, or ask for less."
        )
    return UsageError(
        f"a cosine of {wanted:.6g} is out of reach{where}: these methods get to {ceiling:.4f} with endlessly many "
        "copies; ask for less, or probe methods with higher ceilings."
    )
