"""What the cost figure shows: measured curves against cost, the law beyond the run, the best method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats
from gradprobe.plots._choice import Choice
from gradprobe.plots._panels import Curve, Panel, law_is_there, layer_panels, model_panel

Array = npt.NDArray[np.float64]

BEYOND = 10.0
"""How far a panel goes beyond its most expensive run."""

POINTS = 120
"""Costs at which laws are drawn."""


@dataclass(frozen=True)
class Lead:
    """A stretch of the frontier.

    Attributes:
        color: Of the method that leads.
        estimator: That method.
        costs: Where.
        cosine: The law's value there.
        resolved: Whether its interval is above all others' in the whole stretch.
        place: The method's place among the run's estimators.
    """

    color: str
    estimator: str
    costs: Array
    cosine: Array
    resolved: bool
    place: int


@dataclass(frozen=True)
class Priced:
    """A panel against cost.

    Attributes:
        panel: Its curves; their ``copies`` are costs, their ``law`` goes on where the run ends.
        span: First and last cost.
        leads: The frontier, from left to right.
        leaders: Method -> range of costs in which it leads.
    """

    panel: Panel
    span: tuple[float, float]
    leads: list[Lead] = field(default_factory=list)
    leaders: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        renamed = []
        for curve in self.panel.to_dict()["methods"]:
            law = {"costs" if k == "copies" else k: v for k, v in curve["law"].items()}
            names = ("estimator", "color", "mean", "low", "high", "seeds", "note")
            renamed.append({"costs": curve["copies"], "law": law} | {k: curve[k] for k in names})
        frontier = [
            {"estimator": x.estimator, "costs": x.costs, "cosine": x.cosine, "resolved": x.resolved}
            for x in self.leads
        ]
        about = {"name": self.panel.name, "over": self.panel.over, "numel": self.panel.numel}
        return about | {"methods": renamed, "frontier": frontier, "leads": self.leaders}


def cost_panels(
    ds: xr.Dataset, estimators: list[str], layers: list[str], choice: Choice, against: str, model: bool
) -> list[Priced]:
    """A panel for each layer, and one for the model.

    Args:
        ds: Results.
        estimators: Labels.
        layers: Names.
        choice: Reference, scale, level and band.
        against: A kind of cost (see ``stats.frontier``).
        model: Whether the model has a panel.
    """
    some = ds.sel(estimator=estimators)
    found = []
    if layers:
        panels = layer_panels(ds, estimators, layers, choice)
        found += _priced(some, panels, choice, against, "layer")
    if model:
        found += _priced(some, [model_panel(ds, estimators, choice)], choice, against, "model")
    return found


def _priced(ds: xr.Dataset, panels: list[Panel], choice: Choice, against: str, over: str) -> list[Priced]:
    prices = stats.cost(ds, over)
    price = prices["forwards"] * 0 + 1 if against == "copies" else prices[against]
    at = [{} if over == "model" else {"layer": p.name} for p in panels]
    moved = [_against(p, price.sel(where)) for p, where in zip(panels, at, strict=True)]
    spans = [_span(p) for p in moved]
    if not law_is_there(ds):
        return [Priced(_without_law(p, s), s) for p, s in zip(moved, spans, strict=True)]
    costs = np.geomspace(min(s[0] for s in spans), max(s[1] for s in spans), POINTS)
    scale = choice.scale if over == "model" else "raw"
    front = stats.frontier(ds, against, list(costs), over, choice.reference, scale)
    return [_with_law(p, s, front.sel(where)) for p, s, where in zip(moved, spans, at, strict=True)]


def _against(panel: Panel, price: xr.DataArray) -> Panel:
    """The panel with costs in place of copies; for a method without noise the cost of its one evaluation."""
    curves = []
    for c in panel.curves:
        each = float(price.sel(estimator=c.estimator))
        costs: Any = np.array([each]) if c.flat else c.copies * each
        curves.append(replace(c, copies=costs, law={}, ceiling={}))
    return replace(panel, curves=curves)


def _span(panel: Panel) -> tuple[float, float]:
    """From the first block of the cheapest method to beyond the run of the dearest."""
    noisy = [c.copies[np.isfinite(c.mean) & np.isfinite(c.copies)] for c in panel.curves if not c.flat]
    noisy = [x for x in noisy if x.size]
    if noisy:
        return min(float(x[0]) for x in noisy), BEYOND * max(float(x[-1]) for x in noisy)
    fixed = [float(c.copies[0]) for c in panel.curves if c.flat and np.isfinite(c.copies[0])]
    return (min(fixed) / 3, max(fixed) * 3) if fixed else (1.0, 10.0)


def _flat(curve: Curve, end: float) -> Curve:
    """A method without noise: a line from the cost of its evaluation on, or nothing if that is too dear."""
    price = float(curve.copies[0])
    value = curve.mean[np.isfinite(curve.mean)]
    x: Any = np.array([price, end])
    there = value.size > 0 and price < end
    y = np.full(2, value[0] if there else np.nan)
    seeds = np.full(2, curve.seeds.max(initial=0))
    note = curve.note if there or curve.note else f"costs {price:.3g}"
    return replace(curve, copies=x, mean=y, low=y * np.nan, high=y * np.nan, seeds=seeds, note=note)


def _without_law(panel: Panel, span: tuple[float, float]) -> Panel:
    return replace(panel, curves=[_flat(c, span[1]) if c.flat else c for c in panel.curves])


def _with_law(panel: Panel, span: tuple[float, float], front: xr.Dataset) -> Priced:
    costs = front["cost"].values
    shown = (costs >= span[0] * 0.999) & (costs <= span[1] * 1.001)
    curves = []
    for c in panel.curves:
        mine = front.sel(estimator=c.estimator)
        known = shown & np.isfinite(mine["cosine"].values)
        further = known & mine["beyond"].values
        further[:-1] |= further[1:] & known[:-1]  # no gap where the run ends
        law = {"copies": costs[further], "cosine": _cut(mine["cosine"].values[further])}
        curves.append(_flat(c, span[1]) if c.flat else replace(c, law=law if further.any() else {}))
    leaders = {}
    for c in panel.curves:
        start, end = (float(front[k].sel(estimator=c.estimator)) for k in ("leads_from", "leads_to"))
        if np.isfinite(start) and start < span[1] and end > span[0]:
            leaders[c.estimator] = (max(start, span[0]), min(end, span[1]))
    return Priced(replace(panel, curves=curves), span, _leads(front, shown, panel), leaders)


def _cut(cosine: Array) -> Array:
    """What a fitted law says beyond 1 is noise."""
    return np.clip(cosine, -1.0, 1.0)


def _leads(front: xr.Dataset, shown: npt.NDArray[np.bool_], panel: Panel) -> list[Lead]:
    """Stretches of one leader and one state; each reaches up to where the next begins."""
    colors = {c.estimator: (c.color, c.place) for c in panel.curves}
    best, resolved = front["best"].values, front["resolved"].values
    costs, cosine = front["cost"].values, _cut(front["best_cosine"].values)
    places = np.flatnonzero(shown & (best != "") & np.isfinite(cosine))
    found: list[Lead] = []
    begin = 0
    for i in range(1, places.size + 1):
        here = places[begin]
        if i < places.size:
            same = best[places[i]] == best[here] and resolved[places[i]] == resolved[here]
            if same and places[i] == places[i - 1] + 1:
                continue
        inside = places[begin:i]
        if i < places.size and places[i] == places[i - 1] + 1:
            inside = np.append(inside, places[i])
        name = str(best[here])
        color, place = colors[name]
        found.append(Lead(color, name, costs[inside], cosine[inside], bool(resolved[here]), place))
        begin = i
    return found
