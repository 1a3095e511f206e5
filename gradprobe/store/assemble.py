"""From units to one labelled Dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.spec import canonical_json
from gradprobe.store.choice import find_unit, priced_alike, serving_units, worth
from gradprobe.store.products import Products, fill_products
from gradprobe.store.schema import (
    REFERENCE_SCALARS,
    SAMPLE_MOMENTS,
    SCHEMA_VERSION,
    LayerInfo,
    Unit,
    UnitKey,
    View,
)

_BY_COPIES = ("forwards", "equivalents", "nonfinite")
_BY_UNIT = ("seconds", "peak_bytes", "kept_bytes", "plain_bytes")


def assemble(
    layers: list[LayerInfo],
    views: list[View],
    units: Iterable[Unit],
    seeds: list[int],
    block: int,
    references: tuple[str, ...],
    facts: dict[str, Any] | None = None,
    copies: int = 0,
    products: Sequence[Products] = (),
) -> xr.Dataset:
    """Put units into the Dataset that every statistic reads.

    Args:
        layers: Layers in execution order; they give the order of ``parameter``.
        views: Estimators in the order in which they were asked for.
        units: What has been computed so far; units that nothing refers to are ignored.
        seeds: Seeds, in order.
        block: Copies in a block.
        references: Names along ``reference``.
        facts: JSON-able facts about the run; kept in ``attrs`` (nested ones as JSON text). The entry
            ``gradient_sqnorm``, |g_bp|^2 by parameter, fills the reference of layers that an estimator does
            not serve, so that the whole model's norm is known; ``dataset_sqnorm`` and ``dataset_dot`` alike.
            ``sample_loss`` becomes a variable, and moments of samples are there if it is.
        copies: Copies that were asked for: the grid reaches at least this far.
        products: Products of seeds.

    Returns:
        Dataset as described in :mod:`gradprobe.store.schema`. What is missing is NaN, with status "missing".
    """
    by_key: dict[UnitKey, list[Unit]] = {}
    for unit in priced_alike(list(units)):
        by_key.setdefault(unit.key, []).append(unit)
    parameters = [p for layer in layers for p in layer.parameters]
    ds = _empty(layers, views, _grid(views, by_key, block, copies), seeds, references)
    facts = dict(facts or {})
    squares, dots = facts.pop("gradient_sqnorm", {}), facts.pop("dataset_dot", {})
    whole = facts.pop("dataset_sqnorm", {})
    _add_samples(ds, facts.pop("sample_loss", []))
    for p, name in enumerate(parameters):
        own, over_data = squares.get(name, np.nan), whole.get(name, np.nan)
        _fill_reference(ds, "bp", p, own, own)
        _fill_reference(ds, "dataset", p, over_data, dots.get(name, np.nan))
    notes: dict[str, dict[str, str]] = {}
    failed: set[str] = set()
    for e, view in enumerate(views):
        booked: dict[tuple[int, int], str] = {}
        for layer in layers:
            where = [parameters.index(p) for p in layer.parameters]
            if layer.name in view.refused:
                ds["status"].values[e, where, :] = "refused"
            if layer.name not in view.sources:
                continue
            shown: list[Unit | None] = []
            for s, seed in enumerate(seeds):
                found = find_unit(by_key, view, layer.name, seed)
                shown.append(found[0] if found is not None else None)
                if found is None:
                    continue
                unit, row, hidden = found
                for note in filter(None, (unit.note, hidden)):
                    notes.setdefault(view.label, {}).setdefault(note, layer.name)
                if unit.status == "failed" or hidden:
                    failed.add(view.label)
                first = (id(unit), s) not in booked
                own = booked.setdefault((id(unit), s), layer.parameters[0])
                if unit.status != "failed":
                    ds["booked_on"].values[e, where] = own
                _fill(ds, unit, row, layer, where, (e, s), first, view.stochastic)
                _fill_extras(ds, serving_units(by_key, view, layer.name, seed), view, layer, where, (e, s))
            if view.stochastic and products:
                table = ds["seed_product"].values[e, where]
                fill_products(
                    table, products, view.sources[layer.name], (layer.name, layer.parameters), seeds, shown
                )
                ds["seed_product"].values[e, where] = table
    ds.attrs = {"schema_version": SCHEMA_VERSION, "block": block} | _flat(facts)
    ds.attrs["notes"] = canonical_json(notes)
    ds.attrs["failed"] = canonical_json([v.label for v in views if v.label in failed])
    ds.attrs["refused"] = canonical_json({v.label: v.refused for v in views if v.refused})
    ds.attrs["layers"] = canonical_json([layer.to_dict() for layer in layers])
    return ds


def _grid(views: list[View], by_key: dict[UnitKey, list[Unit]], block: int, asked: int) -> list[int]:
    used = {source for view in views for source, _ in view.sources.values()}
    most = max((u.copies for k, us in by_key.items() if k.source in used for u in us), default=block)
    return list(range(block, max(most, asked) + 1, block))


def _empty(
    layers: list[LayerInfo], views: list[View], copies: list[int], seeds: list[int], refs: tuple[str, ...]
) -> xr.Dataset:
    owners = [layer for layer in layers for _ in layer.parameters]
    shapes = [shape for layer in layers for shape in layer.shapes]
    coords: dict[str, Any] = {
        "reference": list(refs),
        "estimator": [v.label for v in views],
        "parameter": [p for layer in layers for p in layer.parameters],
        "seed": seeds,
        "copies": copies,
        "other_seed": seeds,
        "layer": ("parameter", [layer.name for layer in owners]),
        "numel": ("parameter", [int(np.prod(shape)) for shape in shapes]),
        "order": ("parameter", [layers.index(layer) for layer in owners]),
        "color": ("estimator", [v.color for v in views]),
        "target": ("estimator", [v.target for v in views]),
        "stochastic": ("estimator", [v.stochastic for v in views]),
        "summary": ("estimator", [v.summary for v in views]),
        "sigma": ("estimator", [v.sigma for v in views]),
        "method": ("estimator", [v.method for v in views]),
        "copies_step": ("estimator", [v.grain[0] for v in views]),
        "copies_fewest": ("estimator", [v.grain[1] for v in views]),
        "whole": ("estimator", [v.whole for v in views]),
    }
    if any(layer.level_of for layer in layers):
        coords["level_of"] = ("parameter", [layer.level_of for layer in owners])
    ds = xr.Dataset(coords=coords)
    per_seed = ("estimator", "parameter", "seed")
    dims = {"dot": ("reference", *per_seed, "copies"), "sqnorm": (*per_seed, "copies")}
    dims |= {"block_sqnorm": (*per_seed, "copies"), "seed_product": (*per_seed, "other_seed")}
    dims |= {name: ("reference", *per_seed) for name in REFERENCE_SCALARS}
    dims |= {name: (*per_seed, "copies") for name in _BY_COPIES} | {name: per_seed for name in _BY_UNIT}
    sizes = {d: len(coords[d]) for d in ("reference", *per_seed, "copies", "other_seed")}
    for name, names in dims.items():
        ds[name] = (names, np.full([sizes[d] for d in names], np.nan))
    ds["status"] = (per_seed, np.full([sizes[d] for d in per_seed], "missing", dtype="<U7"))
    longest = max(map(len, coords["parameter"]), default=1)
    ds["booked_on"] = (per_seed[:2], np.full([sizes[d] for d in per_seed[:2]], "", dtype=f"<U{longest}"))
    return ds


def _add_samples(ds: xr.Dataset, losses: Sequence[float]) -> None:
    if losses:
        ds.coords["sample"] = np.arange(len(losses))
        ds["sample_loss"] = ("sample", np.array(losses, dtype=np.float64))
        dims = ("estimator", "parameter", "seed", "sample")
        for name in SAMPLE_MOMENTS:
            ds[name] = (dims, np.full([ds.sizes[d] for d in dims], np.nan))


def _fill_reference(ds: xr.Dataset, reference: str, parameter: int, square: float, dot: float) -> None:
    """What is known of a reference without noise, whoever serves the layer."""
    own = list(ds["reference"].values).index(reference) if reference in ds["reference"].values else None
    if own is not None:
        for name in ("reference_sqnorm", "reference_block_sqnorm"):
            ds[name].values[own, :, parameter] = square
        ds["reference_dot"].values[own, :, parameter] = dot
        ds["reference_blocks"].values[own, :, parameter] = 1.0


def _fill(
    ds: xr.Dataset,
    unit: Unit,
    r: int,
    layer: LayerInfo,
    where: list[int],
    at: tuple[int, int],
    first: bool,
    stochastic: bool,
) -> None:
    e, s = at
    ds["status"].values[e, where, s] = unit.status
    if unit.status == "failed":
        return
    n = slice(0, unit.sqnorm.shape[-1]) if stochastic else slice(None)
    rows = [unit.parameters.index(p) for p in layer.parameters]
    refs = [list(ds["reference"].values).index(x) for x in unit.references if x in ds["reference"].values]
    for name in ("sqnorm", "block_sqnorm"):
        ds[name].values[e, where, s, n] = getattr(unit, name)[r, rows]
    for i in refs:
        j = unit.references.index(str(ds["reference"].values[i]))
        ds["dot"].values[i, e, where, s, n] = unit.dot[j, r][rows]
        for name in REFERENCE_SCALARS:
            ds[name].values[i, e, where, s] = getattr(unit, name)[j][rows]
    for name in _BY_COPIES + _BY_UNIT:
        tail = (n,) if name in _BY_COPIES else ()
        for p in where:
            ds[name].values[(e, p, s, *tail)] = 0.0
        if first:
            ds[name].values[(e, where[0], s, *tail)] = getattr(unit, name)


def _fill_extras(
    ds: xr.Dataset, serving: list[Unit], view: View, layer: LayerInfo, where: list[int], at: tuple[int, int]
) -> None:
    """Moments of samples, from the unit with most copies that has them: another may have more copies without."""
    e, s = at
    having = [u for u in serving if u.extras and u.status != "failed"]
    if not having:
        return
    best = max(having, key=worth)
    r, rows = (
        best.readouts.index(view.sources[layer.name][1]),
        [best.parameters.index(p) for p in layer.parameters],
    )
    for name, value in best.extras.items():
        if name in ds:
            ds[name].values[e, where, s] = value[r, rows]


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    plain = (str, int, float)
    return {k: v if isinstance(v, plain) else canonical_json(v) for k, v in facts.items() if v is not None}


def attribute(ds: xr.Dataset, name: str) -> Any:
    """A nested fact kept in ``ds.attrs`` as JSON text.

    Args:
        ds: Results.
        name: Name of the attribute ("refused", "layers", "configuration", ...).

    Returns:
        The decoded value; None if there is no such attribute.
    """
    value = ds.attrs.get(name)
    return json.loads(value) if isinstance(value, str) else value
