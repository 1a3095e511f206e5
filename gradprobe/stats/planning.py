"""Which method, with how many copies, for which layer: the cheapest way to a cosine, or the best use of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core import spec
from gradprobe.core.copyplan import LayerPlan, Plan, Rival, number_or_none
from gradprobe.core.errors import UsageError, one_of, positive, unknown
from gradprobe.stats import register
from gradprobe.stats._forecast import Chosen
from gradprobe.stats._intervals import LEAST_SEEDS
from gradprobe.stats._moments import check_dims
from gradprobe.stats._names import listed
from gradprobe.stats._numbers import check_cosine
from gradprobe.stats._offers import UNITS, Mask, Offers, offers
from gradprobe.stats._optimism import optimism
from gradprobe.stats._planner import Planner, solve, together
from gradprobe.stats._sharing import Array, Goal, Index
from gradprobe.store.levels import weights_part
from gradprobe.store.paths import check_probed

NEARLY_FREE = 0.01
"""Equivalents of a copy below which drawing its noise is what it costs."""

SAME = "it is there what another method of the run is"


@register("plan", summary="cheapest method and copies for each layer, for a cosine or within a budget")
def plan(
    ds: xr.Dataset,
    cosine: float | None = None,
    budget: float | None = None,
    every_layer: bool = False,
    methods: str | Sequence[str] | None = None,
    cost: str = "equivalents",
    reference: str = "bp",
) -> Plan:
    """Choose a method and copies for each layer, from the moments of a run.

    Each layer's direction is rescaled to unit gain (times |g|^2/<mu, g>), so that layers of different gain fit
    together. Then the whole model follows 1/cos^2 = sum_l w_l (1/rho_l^2 + p_l/n_l) with w_l = |g_l|^2/|g|^2,
    ceiling rho, price p and copies n, and the cheapest shares are n_l ~ sqrt(w_l p_l/c_l), c_l the cost of a copy.
    Among *all* mappings of layers to methods the best is found, with fractional copies exactly (``_sharing.py``).
    Whole copies (at least one, pairs where antithetic) are then rounded so that the target is met or the budget
    kept; ``Plan.bound`` is what no plan can pass, so the distance to it is the most that rounding has cost (at
    most about one copy of each layer).

    Unit gain keeps the direction a gradient: where ceilings are 1 its mean is the gradient. Weights that shrink
    noisy layers would give a higher cosine for the same copies, at a mean that is no gradient.

    **Candidates** are the run's methods with noise; without it (``bp``) there are no copies to plan. A method whose
    one draw serves all layers (joint injection) is offered as a whole, with the same copies in all layers: mixed
    with others its noise would be another. A method is no candidate in a layer where its price is not resolved (its
    interval is infinite), it is refused or failed; ``Plan.left_out`` says so.

    **Ceilings**: where the run holds the reference "smoothed" too, the mean of a method that declares it is taken
    from it: ceiling and gain against backprop are those of the smoothed gradient, which is far less noisy than the
    estimates are. Without that reference its ceiling is 1 (``notes`` says so: a smoothing bias would be missed), and
    its scale 1 and price T/|g|^2 unless its gain contradicts that (t test, 5 % over all layers by Holm). Both unless
    its moments contradict the declaration (one-sided, likewise). Against the reference "smoothed" that goes for
    methods that declare the smoothed gradient alone; against any other than it and backprop no declaration counts:
    the gradient of a data set is not that of a batch. Else the estimated ceiling where it is resolved, at most 1;
    else its lower bound (the predicted cosine is then a lower bound too).

    **Predicted cosine**: the formula at the chosen methods, copies and scales, with the delete-one-seed jackknife of
    the whole of it (t, 95 %); NaN (None) below three seeds. The noise that chose the methods also judges them, so the
    low end is lowered by what cross-validation over seeds finds promised too much (``_optimism.py``). The interval is
    about the pooled cosine under new noise on the same batch; ``gp.probe(problem, [plan])`` measures it.

    Source: alignment law, section 1 (derived for this project).

    Args:
        ds: Results.
        cosine: Target of the whole model, or of every layer; between 0 and 1.
        budget: In place of it, what an estimate may cost.
        every_layer: Whether each layer has to reach the cosine by itself; with a budget, make the worst layer best.
        methods: Labels of the candidates, or names that belong to one label; by default all with noise.
        cost: ``equivalents`` (full-forward equivalents, default), ``forwards`` or ``seconds`` of a copy, as
            ``gp.stats.cost`` has them.
        reference: What the cosine is held against, ``bp`` (default) or another of the run.

    Returns:
        The plan; ``gp.estimate(problem, plan)`` and ``gp.probe(problem, [plan])`` run it.

    Raises:
        UsageError: Nothing or too much was asked for, a name is unknown, the target is above the ceiling, the budget
            below one copy, or a layer cannot be planned.

    Example:
        >>> plan = gp.plan(ds, cosine=0.5)
        >>> {layer.layer: layer.method for layer in plan.layers}
        {'conv1': 'es', 'conv2': 'lr', 'conv3': 'lr', 'conv4': 'lr', 'fc': 'lr'}
        >>> print(f"predicted {plan.cosine:.2f} [{plan.low:.2f}, {plan.high:.2f}]")
        predicted 0.50 [0.49, 0.51]
    """
    check_probed(ds)
    check_dims(ds, "estimator", "parameter", "seed", "copies")
    goal = _goal(cosine, budget)
    one_of("cost", cost, UNITS)
    weights = weights_part(ds)
    if weights is None:
        raise UsageError(
            "the run holds levels of noise alone, and plans are for weights; probe lr, es or others."
        )
    ds = weights
    found = offers(ds, cost, reference)
    candidates = _candidates(ds, found, methods)
    same = _repeated(found, candidates)
    allowed = found.usable & candidates[:, None] & ~same
    planner = Planner(found, goal, every_layer)
    mapping, copies, bound = solve(planner, allowed)
    chosen = Chosen.of(found, mapping, copies)
    value, low, high = chosen.forecast()
    low -= optimism(planner, allowed)
    total = planner.cost(mapping, copies)
    return Plan(
        goal="cosine" if budget is None else "budget",
        wanted=float(cosine if budget is None else budget),  # type: ignore[arg-type]  # one of them is given
        every_layer=bool(every_layer),
        unit=cost,
        layers=_layers(ds, found, mapping, chosen, total),
        cost=total,
        bound=bound if budget is None else bound**-0.5,
        cosine=value,
        low=number_or_none(low),
        high=number_or_none(high),
        methods=tuple(m for m, asked in zip(found.methods, candidates, strict=True) if asked),
        left_out=tuple(_left_out(found, candidates, same)),
        rivals=tuple(_rival(planner, m) for m in range(len(found.methods))),
        notes=tuple(_notes(ds, found, mapping, copies, reference) + _cheap(found, mapping, cost)),
        facts=_facts(ds, found, reference),
    )


def _goal(cosine: float | None, budget: float | None) -> Goal:
    if (cosine is None) == (budget is None):
        raise UsageError(
            "give cosine=0.9 (or another target), or budget= (what an estimate may cost): one of them."
        )
    if budget is not None:
        return Goal(budget=positive("budget", budget))
    return Goal(inverse=check_cosine(cosine) ** -2)


def _candidates(ds: xr.Dataset, found: Offers, methods: str | Sequence[str] | None) -> Mask:
    """Which of the methods are asked for ``[method]``."""
    if methods is None:
        return np.ones(len(found.methods), dtype=bool)
    every = [str(e) for e in ds["estimator"].values]
    asked = spec.split(methods) if isinstance(methods, str) else listed("methods", methods)
    if not asked:
        raise UsageError(f"no methods given; choose from {', '.join(found.methods)}.")
    mask = np.zeros(len(found.methods), dtype=bool)
    for name in asked:
        alike = [n for n in every if n == name] or [n for n in every if n.partition("(")[0] == name]
        if len(alike) != 1:
            raise unknown("method", name, every)
        if alike[0] not in found.methods:
            raise UsageError(
                f"{name} has no noise, so there are no copies of it to plan; leave it out of methods."
            )
        mask[found.methods.index(alike[0])] = True
    return mask


def _repeated(found: Offers, candidates: Mask) -> Mask:
    """Where a method is what an earlier candidate is (a hybrid reads what its parts read) ``[method, layer]``."""
    same = np.zeros(found.usable.shape, dtype=bool)
    for m in np.flatnonzero(candidates):
        for other in np.flatnonzero(candidates[:m]):
            equal = (
                (found.a[m] == found.a[other])
                & (found.t[m] == found.t[other])
                & (found.x[m] == found.x[other])
            )
            alike = (equal | np.isnan(found.a[m])).all(-1) & found.usable[other]
            same[m] |= alike & (found.whole[m] == found.whole[other])
    return same


def _layers(
    ds: xr.Dataset, found: Offers, mapping: Index, chosen: Chosen, total: float
) -> tuple[LayerPlan, ...]:
    rows: dict[str, LayerPlan] = {name: LayerPlan(name, "", 0, 0.0, 0.0, 0.0) for name in found.idle}
    for i, name in enumerate(found.layers):
        spent = float(found.cost[mapping[i], i] * chosen.copies[i])
        ends = (number_or_none(x) for x in chosen.alone(i).forecast())
        scale, copies = float(chosen.scale[i]), int(chosen.copies[i])
        rows[name] = LayerPlan(name, found.methods[mapping[i]], copies, scale, spent, spent / total, *ends)
    order = dict.fromkeys(str(x) for x in ds["layer"].values[np.argsort(ds["order"].values, kind="stable")])
    return tuple(rows[name] for name in order if name in rows)


def _left_out(found: Offers, candidates: Mask, same: Mask) -> list[tuple[str, str, str]]:
    """(method, layer or "all layers", reason) of every candidate that was none somewhere."""
    rows = []
    for m in np.flatnonzero(candidates):
        why = [found.why[m, i] or (SAME if same[m, i] else "") for i in range(len(found.layers))]
        if why[0] and len(set(why)) == 1:
            rows.append((found.methods[m], "all layers", str(why[0])))
        else:
            rows += [(found.methods[m], x, str(y)) for x, y in zip(found.layers, why, strict=True) if y]
    return rows


def _rival(planner: Planner, method: int) -> Rival:
    """One method in all layers, with equal copies and with its own best shares."""
    found = planner.offers
    label, mapping = found.methods[method], together(planner, method)
    short = np.flatnonzero(~found.usable[method])
    if short.size:
        layer = int(short[0])
        return Rival(label, None, None, f"not known for {found.layers[layer]}, {found.why[method, layer]}")
    equal = planner.equal(mapping)
    best = equal if found.whole[method] else planner.shares(mapping)
    if equal is None or best is None:
        if planner.goal.budget is not None:
            return Rival(label, None, None, "its fewest copies cost more than the budget")
        ceiling = found.inverse[method].max() if planner.every_layer else planner.floor(mapping)
        reached = f"{float(ceiling) ** -0.5:.3f}"
        if (found.fixed[method] > 1).any():
            return Rival(label, None, None, f"that it gets beyond a cosine of {reached} is not certain")
        return Rival(label, None, None, f"it gets to a cosine of {reached} at most")
    if planner.goal.inverse is not None:
        return Rival(label, planner.cost(mapping, equal), planner.cost(mapping, best))
    return Rival(label, planner.inverse(mapping, equal) ** -0.5, planner.inverse(mapping, best) ** -0.5)


def _cheap(found: Offers, mapping: Index, unit: str) -> list[str]:
    """What equivalents leave out, where it matters."""
    costs = found.cost[mapping, np.arange(len(found.layers))]
    cheap = [found.layers[i] for i in np.flatnonzero(costs < NEARLY_FREE)]
    if not cheap or unit != "equivalents":
        return []
    return [
        f"A copy for {', '.join(cheap)} costs less than {NEARLY_FREE:g} of a forward, and drawing its noise, which "
        "is not in that, costs more: cost='seconds' (--cost seconds) counts what the run took."
    ]


def _notes(ds: xr.Dataset, found: Offers, mapping: Index, copies: Array, reference: str) -> list[str]:
    rows = np.arange(len(found.layers))
    notes = []
    beyond = [found.layers[i] for i in np.flatnonzero(copies > found.fitted[mapping, rows])]
    if beyond:
        notes.append(f"More copies than were probed in {', '.join(beyond)}: the law is extrapolated there.")
    bounded = [found.layers[i] for i in np.flatnonzero(found.fixed[mapping, rows] > 1)]
    if bounded:
        notes.append(
            f"The ceiling is known by its lower bound only in {', '.join(bounded)}: the predicted cosine is a lower "
            "bound."
        )
    smoothed = (ds["target"].sel(estimator=found.methods).values == "smoothed")[mapping]
    if smoothed.any() and reference == "bp" and "smoothed" not in ds["reference"].values:
        notes.append(
            "Smoothing bias is not known to this run and counts as none; probe with reference=('bp', 'smoothed') to "
            "have it in the prediction."
        )
    if found.idle:
        notes.append(f"The gradient of {', '.join(found.idle)} is zero: nothing is estimated there.")
    known = {*found.layers, *found.idle}
    unserved = [x for x in dict.fromkeys(str(x) for x in ds["layer"].values) if x not in known]
    if unserved:
        notes.append(f"No method serves {', '.join(unserved)}: not in the plan, nor in its cosine.")
    if np.isfinite(found.a[mapping, rows]).sum(-1).min() < LEAST_SEEDS:
        notes.append(f"Fewer than {LEAST_SEEDS} seeds: no interval.")
    return notes


def _facts(ds: xr.Dataset, found: Offers, reference: str) -> dict[str, Any]:
    return {
        "problem": str(ds.attrs.get("problem", "")),
        "seeds": [int(s) for s in ds["seed"].values],
        "copies": int(found.fitted.max(initial=0)),
        "reference": reference,
    }
