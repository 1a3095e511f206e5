"""What each method of a run offers in each layer: ceiling, price and cost of a copy, or why it is no candidate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import stdtr  # scipy.stats takes seconds to import

from gradprobe.core import spec
from gradprobe.core.errors import UsageError
from gradprobe.stats._holm import holm
from gradprobe.stats._intervals import LEAST_SEEDS, Array, mean_se
from gradprobe.stats._moments import moments
from gradprobe.stats._smoothed import smoothed
from gradprobe.stats._units import groups_of, read_units
from gradprobe.stats.alignment_law import alignment
from gradprobe.store.assemble import attribute

Mask = npt.NDArray[np.bool_]

UNITS = ("equivalents", "forwards", "seconds")
DECLARED = {"bp": ("exact", "smoothed"), "smoothed": ("smoothed",)}
"""Reference -> targets whose mean is it, as far as a run without more knows; none for any other reference."""

ALPHA = 0.05
"""Chance that a test over all layers of a method errs anywhere."""

LEAST_PRICE = 1e-9


@dataclass(frozen=True)
class Offers:
    """What methods offer; arrays are ``[method, layer]`` unless said otherwise.

    Attributes:
        methods: Labels.
        layers: Names of the layers that have a gradient, in execution order.
        idle: Names of layers whose gradient is zero.
        a: A of each seed ``[method, layer, seed]``; ``x``, ``t`` and ``g`` alike.
        x: X.
        t: T.
        g: |g|^2.
        fixed: 1/ceiling^2 where it is not estimated: 1 by declaration, or from the lower bound of the ceiling;
            NaN where it is.
        inverse: 1/ceiling^2 that plans reckon with, at least 1.
        gradient: Where the mean is taken to be the gradient itself, as declared: gain 1, price T/|g|^2.
        price: Copies / (1/cos^2 - 1/ceiling^2).
        cost: Of one copy.
        fitted: Copies that the law was fitted to.
        step: Copies come in multiples of this ``[method]``.
        least: Fewest copies in a block ``[method]``.
        whole: Whether one draw serves all layers, so that it cannot be mixed ``[method]``.
        why: Why it cannot be planned with, or "".
    """

    methods: list[str]
    layers: list[str]
    idle: list[str]
    a: Array
    x: Array
    t: Array
    g: Array
    fixed: Array
    inverse: Array
    gradient: npt.NDArray[np.bool_]
    price: Array
    cost: Array
    fitted: Array
    step: Array
    least: Array
    whole: npt.NDArray[np.bool_]
    why: npt.NDArray[np.str_]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Where a method can be planned with."""
        return np.asarray(self.why == "")

    @property
    def norm(self) -> Array:
        """|g_l|^2 ``[layer]``."""
        flat = np.moveaxis(self.g, 1, 0).reshape(len(self.layers), -1)
        return mean_se(flat)[0]

    @property
    def weight(self) -> Array:
        """Share of the model's |g|^2 in each layer ``[layer]``."""
        return self.norm / self.norm.sum()


def offers(ds: xr.Dataset, unit: str, reference: str) -> Offers:
    """Read what the noisy methods of a run offer.

    Args:
        ds: Results.
        unit: What a cost is counted in.
        reference: What estimates are held against.

    Raises:
        UsageError: There is no method with noise, no layer with a gradient, or too little was probed.
    """
    noisy = np.asarray(ds["stochastic"].values, dtype=bool)
    if not noisy.any():
        raise UsageError(
            "no method of this run has noise, so there are no copies to plan; probe lr, es or others."
        )
    ds = ds.isel(estimator=np.flatnonzero(noisy))
    law = alignment(ds, reference=reference)
    parts = {k: law[k].transpose("estimator", "layer", "seed").values for k in "AXTG"}
    cells = {k: law[k].transpose("estimator", "layer").values for k in ("state", "price", "price_high")}
    cells |= {k: law[k].transpose("estimator", "layer").values for k in ("ceiling_low", "fitted_copies")}
    fixed, inverse, gradient = _ceilings(ds, parts, cells, reference)
    measured = with_measured_mean(ds, parts, reference)
    fixed, gradient = np.where(measured, np.nan, fixed), gradient & ~measured
    inverse = np.where(measured, _inverse(parts), inverse)
    costs = _costs(ds)
    forwards, cost = costs["forwards"], costs[unit]
    why = _reasons(ds, law, parts, cells, inverse)
    why = np.where((why == "") & ~np.isfinite(cost), f"its cost in {unit} is not known", why)
    served = np.asarray(cells["state"] != "refused")
    whole = (served & (forwards == 0)).any(1) & (forwards > 0).any(1)
    labels = [str(e) for e in law["estimator"].values]
    grain = np.array([_grain(ds, label) for label in labels], dtype=np.float64)
    idle, left = _without_gradient(parts["G"], served)
    cost = _on_the_rest(cost, served, np.asarray(whole), left)
    names = np.asarray(law["layer"].values)
    arrays: dict[str, Any] = {k.lower(): v for k, v in parts.items()} | {"fixed": fixed, "inverse": inverse}
    price = prices(parts["A"], parts["T"], parts["G"], gradient)
    arrays |= {"gradient": gradient, "price": price, "cost": cost, "why": why}
    arrays["fitted"] = cells["fitted_copies"].astype(np.float64)
    if not left.any():
        raise UsageError("the gradient is zero in every layer that was probed, so there is nothing to plan.")
    return Offers(
        methods=labels,
        layers=[str(x) for x in names[left]],
        idle=[str(x) for x in names[idle]],
        step=grain[:, 0],
        least=grain[:, 1],
        whole=np.asarray(whole),
        **{k: v[:, left] for k, v in arrays.items()},
    )


def prices(a: Array, t: Array, g: Array, gradient: npt.NDArray[np.bool_]) -> Array:
    """T |g|^2/A^2, with A = |g|^2 where the mean is the gradient ``[...]``, from ``[..., seed]``."""
    a, t, g = (mean_se(v)[0] for v in (a, t, g))
    with np.errstate(all="ignore"):
        return np.maximum(np.where(gradient, t / g, t * g / a**2), LEAST_PRICE)


def _without_gradient(g: Array, served: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
    """Layers whose gradient is zero, and the others that are served ``[layer]``."""
    known = np.isfinite(g) & served[..., None]
    idle = known.any((0, 2)) & ~(known & (g > 0)).any((0, 2))
    return idle, served.any(0) & ~idle


def _ceilings(
    ds: xr.Dataset, parts: dict[str, Array], cells: dict[str, Any], reference: str
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """1/ceiling^2 where it is not estimated (else NaN), the one used, and where the mean is the gradient."""
    declared = _declared(ds, parts, reference)
    gradient = declared & _unit_gain(parts)
    known = np.isin(cells["state"], ("resolved", "too few seeds"))
    with np.errstate(all="ignore"):
        bound = np.where(cells["ceiling_low"] > 0, cells["ceiling_low"] ** -2.0, np.inf)
    fixed = np.where(declared, 1.0, np.where(known, np.nan, np.maximum(bound, 1.0)))
    return fixed, np.where(np.isnan(fixed), _inverse(parts), np.maximum(fixed, 1.0)), gradient


def _declared(ds: xr.Dataset, parts: dict[str, Array], reference: str) -> npt.NDArray[np.bool_]:
    """Where a ceiling of 1 is declared and not contradicted."""
    says = np.isin(ds["target"].values, DECLARED.get(reference, ()))[:, None]
    return np.asarray(says & ~_contradicted(ds, parts, reference))


def _unit_gain(parts: dict[str, Array]) -> npt.NDArray[np.bool_]:
    return np.asarray(~(_p_holm(parts["A"] - parts["G"], 2) < ALPHA))


def as_declared(ds: xr.Dataset, parts: dict[str, Array], reference: str) -> npt.NDArray[np.bool_]:
    """Where the mean is taken to be the reference itself: declared, and contradicted by neither ceiling nor gain.

    Args:
        ds: Results.
        parts: A, X and G ``[method, layer, seed]``.
        reference: What estimates are held against.
    """
    return _declared(ds, parts, reference) & _unit_gain(parts)


def _inverse(parts: dict[str, Array]) -> Array:
    """1/ceiling^2 as it is estimated, at least 1."""
    a, x, g = (mean_se(parts[k])[0] for k in "AXG")
    with np.errstate(all="ignore"):
        return np.maximum(np.where(x > 0, g * x / a**2, 1.0), 1.0)


def with_measured_mean(ds: xr.Dataset, parts: dict[str, Array], reference: str) -> npt.NDArray[np.bool_]:
    """Take the mean of a method that declares the smoothed gradient from that reference, far less noisy than A and X.

    Only where the reference is told from its noise, and the method's moments contradict neither the ceiling nor the
    gain of 1 against it (5 % each, over all layers of a method). A and X are replaced in ``parts``.

    Returns:
        Where that was done, ``[method, layer]``.
    """
    if reference != "bp" or "smoothed" not in ds["reference"].values:
        return np.zeros(parts["A"].shape[:2], dtype=bool)
    law = alignment(ds, reference="smoothed")
    own = {k: law[k].transpose("estimator", "layer", "seed").values for k in "AXTG"}
    mean = smoothed(ds, "layer", parts["A"])
    fits = _p_holm(own["A"] - own["G"], 2) >= ALPHA
    found = (ds["target"].values == "smoothed")[:, None] & (mean.state == "resolved")
    found = found & fits & ~_contradicted(ds, own, "smoothed")
    for name, values in (("A", mean.along), ("X", mean.square)):
        parts[name] = np.where(found[..., None], values, parts[name])
    return np.asarray(found)


def _contradicted(ds: xr.Dataset, parts: dict[str, Array], reference: str) -> npt.NDArray[np.bool_]:
    """Where the moments reject a ceiling of 1 (one-sided t test of X - Y > 0, 5 % over all layers of a method).

    Y = (A^2 - its noise)/|g|^2 is <mu, g>^2/|g|^2 without bias; the noise is that of the dots of the blocks.
    """
    m = moments(ds, "layer", reference)
    k = m.copies / m.block
    sums = m.dot * k
    each = np.diff(sums, axis=-1, prepend=0.0) / np.diff(k, prepend=0.0)
    valid = np.isfinite(m.dot)
    count = valid.sum(-1)
    with np.errstate(all="ignore"):
        many = np.where(valid, k, 0.0).max(-1, initial=0.0)
        spread = np.where(valid, np.diff(k, prepend=0.0) * (each - parts["A"][..., None]) ** 2, 0.0).sum(-1)
        noise = spread / (count - 1) / many
        excess = parts["X"] - (parts["A"] ** 2 - noise) / parts["G"]
    return np.asarray(_p_holm(excess, 1) < ALPHA)


def _p_holm(values: Array, sides: int) -> Array:
    """P values that a mean over seeds is 0 (or, one-sided, not above), adjusted over layers ``[method, layer]``.

    Each method's layers are one family: a plan of many layers asks about all of them. NaN below three seeds.

    Args:
        values: ``[method, layer, seed]``.
        sides: 1 or 2.
    """
    mean, se, seeds = mean_se(values)
    off = np.abs(mean) if sides == 2 else mean
    with np.errstate(all="ignore"):
        t = np.where(se > 0, off / se, np.where(off > 0, np.inf, 0.0))
    p = np.minimum(sides * stdtr(np.where(seeds >= LEAST_SEEDS, seeds - 1, np.nan), -t), 1.0)
    return np.stack([holm(row) for row in p])


def _reasons(
    ds: xr.Dataset, law: xr.Dataset, parts: dict[str, Array], cells: dict[str, Any], inverse: Array
) -> npt.NDArray[np.str_]:
    """Why a method is no candidate in a layer ``[method, layer]``."""
    refused = attribute(ds, "refused") or {}
    a, t = (mean_se(parts[k])[0] for k in "AT")
    why = np.full(a.shape, "", dtype=object)
    for (e, i), state in np.ndenumerate(cells["state"]):
        label, layer, n = (
            str(law["estimator"].values[e]),
            str(law["layer"].values[i]),
            cells["fitted_copies"][e, i],
        )
        if label.partition("(")[0] == "planned":
            why[e, i] = "a plan is no single method"
        elif state == "refused":
            why[e, i] = refused.get(label, {}).get(layer, "it does not serve the layer")
        elif state == "missing":
            why[e, i] = "it is not computed there yet, or failed"
        elif state == "too few copies":
            why[e, i] = "it has fewer than two blocks"
        elif state == "undefined" or not t[e, i] > 0:
            why[e, i] = "its direction or the gradient is zero there"
        elif np.isinf(cells["price_high"][e, i]):
            why[e, i] = f"its price is not resolved at {n:,} copies"
        elif not a[e, i] > 0:
            why[e, i] = "it does not point along the gradient there"
        elif not math.isfinite(inverse[e, i]):
            why[e, i] = f"nothing is known of its ceiling at {n:,} copies"
    return why.astype(str)


def _costs(ds: xr.Dataset) -> dict[str, Array]:
    """Kind -> cost of a copy booked on each layer ``[method, layer]``: 0 where a joint draw is booked on another."""
    units, groups = read_units(ds), groups_of(ds, "layer")[1]
    there = (units.booked >= 0) | units.refused
    known = np.stack([there[:, g].all(1) & (units.booked[:, g] >= 0).any(1) for g in groups], axis=1)
    return {
        kind: np.where(known, np.stack([np.nansum(price[:, g], axis=1) for g in groups], axis=1), np.nan)
        for kind, price in units.price.items()
    }


def _on_the_rest(cost: Array, served: Mask, whole: Mask, left: Mask) -> Array:
    """Costs of draws that serve all layers: what is booked on layers without gradient goes to the first other one.

    Args:
        cost: ``[method, layer]``.
        served: Likewise.
        whole: Whether one draw serves all layers ``[method]``.
        left: Whether a layer has a gradient ``[layer]``.
    """
    cost = cost.copy()
    for method in np.flatnonzero(whole & (served & left).any(1)):
        first = int(np.flatnonzero(served[method] & left)[0])
        cost[method, first] += np.nansum(cost[method, ~left])
    return cost


def _grain(ds: xr.Dataset, label: str) -> tuple[int, int]:
    """Multiples that copies come in, and the fewest in a block; by the options in a method's label in older runs."""
    if "copies_step" in ds.coords:
        own = ds.coords.to_dataset().sel(estimator=label)
        known = int(own["copies_step"]), int(own["copies_fewest"])
        if all(known):
            return known
    try:
        options = spec.parse(label).options
    except UsageError:
        options = {}
    step = 2 if options.get("antithetic") else 1
    return step, 2 * step if options.get("centre") == "mean" else step
