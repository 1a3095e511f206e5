"""Quality against cost, and the best method at every cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError, unknown
from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._numbers import positive_numbers
from gradprobe.stats._units import KINDS, Array, Mask, Places
from gradprobe.stats.alignment_law import alignment
from gradprobe.stats.copy_cost import cost as cost_of
from gradprobe.stats.prediction import predict

COSTS = (*KINDS, "copies")

POINTS = 73
"""Costs of the default grid."""

BEYOND = 10.0
"""How far the default grid goes beyond the most expensive method's run."""


@register(
    "frontier", summary="cosine that each method gives at a cost, and which method is best at which cost"
)
def frontier(
    ds: xr.Dataset,
    cost: str = "equivalents",
    costs: Sequence[float] | None = None,
    over: Over = "layer",
    reference: str = "bp",
    scale: str = "raw",
) -> xr.Dataset:
    """Cosine of every method at equal cost, and the upper envelope over methods.

    A cost c buys n = c / (cost of a copy) copies; the cosine there is the alignment law's, inside the run and beyond
    it, with its interval (see ``predict``; where that gives no value but bounds, so does this). Over the model all
    layers have equally many copies and a copy costs the sum over layers; shares of their own are for a plan.

    **Best** is the method whose law is highest, with fitted ceilings above 1 (they are noise) taken as 1. It has a
    ``best_cosine`` wherever ``predict`` gives it a value. It is ``resolved`` where its interval lies wholly above 0
    and above those of all others, never below three seeds. That is stricter than a test of the paired difference,
    since methods that read one draw share its noise. An estimator without noise whose target is exact (backprop) does
    not compete: it is what the others are held against. Others without noise do, from the cost of their one
    evaluation on. Since 1/cos^2 is linear in 1/c, two laws cross at most once: from the cost on at which all can be
    had, a method leads in one range of costs, or never.

    Args:
        ds: Results.
        cost: ``equivalents`` (default: whole forwards, of which a copy needs only what depends on its noise),
            ``forwards``, ``seconds`` or ``copies``.
        costs: At which costs; by default 73 from one copy of the cheapest method to ten times the most expensive
            run, evenly spaced on a log scale.
        over: ``layer`` (default), ``model``, or groups of layers as for ``cosine``.
        reference: What cosines are with.
        scale: ``raw`` or ``unit-gain`` (model and groups).

    Returns:
        Dataset over (estimator, layer, cost), or (estimator, cost) for the model: ``cosine``, ``cosine_low``,
        ``cosine_high`` (95 %), ``copies`` and ``beyond`` (more copies than the run has); NaN where the cost does not
        buy one copy. Over (layer, cost): ``best`` and ``runner_up`` ("" for none), ``best_cosine`` with ``_low`` and
        ``_high``, ``resolved``. Over (estimator, layer): ``leads_from`` and ``leads_to``, the range of costs in
        which a method is best (the last one if there are two; NaN: nowhere on the grid), and
        ``copy_cost``. Over estimator: ``race``, whether it competes.

    Raises:
        UsageError: A name is unknown, a cost is not positive, or the run has fewer than two blocks.

    Example:
        >>> best = gp.stats.frontier(ds, costs=[10, 100])["best"]
        >>> best.sel(cost=100).to_series().to_dict()
        {'conv1': 'es', 'conv2': 'lr', 'conv3': 'lr', 'conv4': 'lr', 'fc': 'lr'}
    """
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    law = alignment(ds, over, reference, scale)
    price = _price(ds, cost, over).transpose(*law["exact"].dims)
    grid = _grid(ds, law, price) if costs is None else np.unique(positive_numbers("costs", costs)[0])
    # cos(n) depends on T/n alone, so that T for each unit of cost turns copies into costs
    found = predict(law.assign(T=law["T"] * price, fitted_copies=law["fitted_copies"] * price), list(grid))
    found = found.rename(copies="cost")
    affordable = found["cost"] >= price * (1 - 1e-12)
    out = xr.Dataset(attrs=law.attrs | {"cost": cost})
    for name in found.data_vars:
        out[name] = found[name].where(affordable)
    noisy = law["exact"].copy(data=np.broadcast_to(_noisy(ds, law), law["exact"].shape))
    out["copies"] = (found["cost"] / price).where(affordable & noisy).transpose(*found["cosine"].dims)
    out["beyond"] = out["copies"] > law["fitted_copies"] * (1 + 1e-12)
    out["copy_cost"] = price
    exact = np.asarray(ds["target"].values == "exact") & ~np.asarray(ds["stochastic"].values, dtype=bool)
    out["race"] = ("estimator", ~exact)
    _add_best(out, law)
    return out


def _price(ds: xr.Dataset, cost: str, over: Over) -> xr.DataArray:
    """Cost of one copy, or of the one evaluation of a method without noise."""
    found = cost_of(ds, over)
    if cost != "copies":
        return found[cost]
    return xr.ones_like(found["forwards"]).where(found["forwards"].notnull())


def _noisy(ds: xr.Dataset, law: xr.Dataset) -> Mask:
    noisy = np.asarray(ds["stochastic"].values, dtype=bool)
    return noisy.reshape(-1, *[1] * (law["exact"].ndim - 1))


def _grid(ds: xr.Dataset, law: xr.Dataset, price: xr.DataArray) -> Array:
    least, runs = price.values, (price * law["fitted_copies"]).where(law["fitted_copies"] > 0).values
    usable = np.isfinite(least) & (least > 0) & np.isfinite(runs) & _noisy(ds, law)
    if not usable.any():
        usable = np.isfinite(least) & (least > 0)
        runs = least
    if not usable.any():
        raise UsageError(
            "no unit of this run has a cost yet, so there is no grid of costs; give costs=[...]."
        )
    return np.geomspace(least[usable].min(), BEYOND * runs[usable].max(), POINTS)


def _add_best(out: xr.Dataset, law: xr.Dataset) -> None:
    """The envelope and the ranges in which methods lead."""
    parts = tuple(str(d) for d in out["cosine"].dims if d not in ("estimator", "cost"))
    order = ("estimator", *parts, "cost")
    value, low, high = (out[k].transpose(*order).values for k in ("cosine", "cosine_low", "cosine_high"))
    present = out["race"].values.reshape(-1, *[1] * (value.ndim - 1)) & (
        np.isfinite(value) | np.isfinite(high)
    )
    lines = _lines(law, out["copy_cost"], order[:-1])
    with np.errstate(all="ignore"):
        score = (lines[0][..., None] + lines[1][..., None] / out["cost"].values) ** -0.5
    score = np.where(present & np.isfinite(score), score, -np.inf)
    ranked = np.argsort(-score, axis=0, kind="stable")
    names = np.array([*(str(e) for e in out["estimator"].values), ""])
    best, second = (_place(score, ranked, rank) for rank in (0, 1))
    rest = order[1:]
    out["best"], out["runner_up"] = (rest, names[best]), (rest, names[second])
    for suffix, values in (("", value), ("_low", low), ("_high", high)):
        out[f"best_cosine{suffix}"] = (rest, _at(values, best))
    out["resolved"] = (rest, _resolved(present, value, high, best, _at(low, best)))
    start, end = _ranges(best, out["cost"].values, *lines)
    out["leads_from"], out["leads_to"] = (order[:-1], start), (order[:-1], end)


def _place(score: Array, ranked: Places, rank: int) -> Places:
    """Index of the method of a rank, ``[..., cost]``; -1 where there is none."""
    if rank >= len(ranked):
        return np.full(score.shape[1:], -1)
    there = np.take_along_axis(score, ranked[rank][None], axis=0)[0] > -np.inf
    return np.where(there, ranked[rank], -1)


def _at(values: Array, index: Places) -> Array:
    found = np.take_along_axis(values, np.maximum(index, 0)[None], axis=0)[0]
    return np.where(index >= 0, found, np.nan)


def _resolved(rivals: Mask, value: Array, high: Array, best: Places, low: Array) -> Mask:
    """Whether the best method's interval lies above 0 and all rivals'.

    A rival without an interval may be anywhere. One that reads the same units alike (a hybrid and its part) is none.
    """
    own = np.arange(len(high)).reshape(-1, *[1] * best.ndim) == best
    own |= np.isclose(value, _at(value, best), rtol=1e-12) & np.isclose(high, _at(high, best), rtol=1e-12)
    reach = np.where(rivals & ~own, np.where(np.isfinite(high), high, np.inf), -np.inf).max(0)
    return np.asarray((best >= 0) & (low > np.maximum(reach, 0.0)))


def _lines(law: xr.Dataset, price: xr.DataArray, order: tuple[str, ...]) -> tuple[Array, Array, Array]:
    """1/cos^2 = a + b/cost with a >= 1: a, b and the price of a copy, ``[estimator, ...]``; NaN if cos <= 0."""
    a, x, t, g = (law[k].mean("seed") for k in "AXTG")
    with np.errstate(all="ignore"):
        square = (a**2).where(a > 0)
        found = ((x * g / square).clip(min=1.0), t * g / square * price, price)
        return tuple(v.transpose(*order).values for v in found)  # type: ignore[return-value]  # three of them


def _ranges(best: Places, grid: Array, a: Array, b: Array, price: Array) -> tuple[Array, Array]:
    """First and last cost at which each method is best, ``[estimator, ...]``; the laws decide between grid points."""
    start, end = np.full(a.shape, np.nan), np.full(a.shape, np.nan)
    last = grid.size - 1
    for e in range(len(a)):
        mine = best == e
        led = mine.any(-1)
        final = last - mine[..., ::-1].argmax(-1)
        before = ~mine & (np.arange(last + 1) < final[..., None])
        first = np.where(before.any(-1), last + 1 - before[..., ::-1].argmax(-1), 0)
        start[e] = np.where(led, _change(best, grid, (a, b, price), first), np.nan)
        after = np.where(
            final < last, _change(best, grid, (a, b, price), np.minimum(final + 1, last)), grid[-1]
        )
        end[e] = np.where(led, after, np.nan)
    return start, end


def _change(best: Places, grid: Array, lines: tuple[Array, Array, Array], index: npt.NDArray[Any]) -> Array:
    """Cost at which the leader at a point of the grid takes over from the one at the point before."""
    before = np.maximum(index - 1, 0)
    old, new = (np.take_along_axis(best, i[..., None], axis=-1)[..., 0] for i in (before, index))
    a, b, price = ((_at(v, old), _at(v, new)) for v in lines)
    with np.errstate(all="ignore"):
        crossing = (b[0] - b[1]) / (a[1] - a[0])
    crossing = np.where(np.isfinite(crossing), crossing, grid[before])
    crossing = np.where(old >= 0, np.fmax(crossing, price[1]), np.fmax(grid[before], price[1]))
    return np.where(index > 0, np.clip(crossing, grid[before], grid[index]), grid[0])
