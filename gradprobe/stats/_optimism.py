"""How much a plan promises too much because the noise that chose it also judges it: cross-validation over seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradprobe.core.errors import UsageError
from gradprobe.stats._forecast import Chosen
from gradprobe.stats._intervals import Array, mean_se
from gradprobe.stats._offers import Offers, prices
from gradprobe.stats._planner import Mask, Planner, solve
from gradprobe.stats._sharing import Index


def optimism(planner: Planner, allowed: Mask) -> float:
    """Predicted minus cross-validated cosine; 0 if that is negative, or if fewer than two seeds can be left out.

    Each seed is left out once: a plan is made from the others, and held against the one left out, where
    <d, g> = sum s A and |d|^2 = sum s^2 (X + T/n) are without bias: methods, copies and scales s come from the other
    seeds; X = A A'/(G ceiling^2), A' from the other seeds, where the ceiling is not estimated; A = G where the mean
    is taken to be the gradient. These are averaged over seeds before the ratio.

    Args:
        planner: What made the plan.
        allowed: Methods that may be mixed ``[method, layer]``.
    """
    promised, dots, squares = [], [], []
    for seed in range(planner.offers.a.shape[-1]):
        rest = _without(planner.offers, seed)
        try:
            mapping, copies, _ = solve(replace(planner, offers=rest), allowed)
        except UsageError:
            continue
        chosen = Chosen.of(rest, mapping, copies)
        dot, square = _held_out(planner.offers, mapping, chosen, seed)
        if np.isfinite(dot + square):
            promised.append(chosen.forecast()[0])
            dots.append(dot)
            squares.append(square)
    if len(dots) < 2 or not np.mean(squares) > 0:
        return 0.0
    kept = np.mean(dots) / np.sqrt(np.mean(squares) * planner.offers.norm.sum())
    return max(float(np.mean(promised) - kept), 0.0)


def _without(found: Offers, seed: int) -> Offers:
    """What methods offer by the other seeds."""

    def drop(values: Array) -> Array:
        rest = values.copy()
        rest[..., seed] = np.nan
        return rest

    a, x, t, g = (drop(v) for v in (found.a, found.x, found.t, found.g))
    mean_a, mean_x, mean_g = (mean_se(v)[0] for v in (a, x, g))
    with np.errstate(all="ignore"):
        estimate = np.where(mean_x > 0, mean_g * mean_x / mean_a**2, 1.0)
    inverse = np.maximum(np.where(np.isnan(found.fixed), estimate, found.fixed), 1.0)
    price = prices(a, t, g, found.gradient)
    return replace(found, a=a, x=x, t=t, g=g, price=price, inverse=inverse)


def _held_out(found: Offers, mapping: Index, chosen: Chosen, seed: int) -> tuple[float, float]:
    """<d, g> and |d|^2 of a plan by one seed."""
    rows = np.arange(len(mapping))
    a, x, t, g = (v[mapping, rows, seed] for v in (found.a, found.x, found.t, found.g))
    other = np.where(chosen.gradient, g, mean_se(chosen.a)[0])
    a = np.where(chosen.gradient & np.isfinite(a), g, a)
    x = np.where(np.isnan(chosen.fixed), x, chosen.fixed * a * other / g)
    return float((chosen.scale * a).sum()), float((chosen.scale**2 * (x + t / chosen.copies)).sum())
