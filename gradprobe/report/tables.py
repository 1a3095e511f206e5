"""Tables of a run: one like Table 4 of the ALR paper, and one of every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.store.levels import levels_part, weights_part

Range = tuple[int, int] | None

FEWEST = 3
"""Stored points that Sta. needs."""


def summary(ds: xr.Dataset, copies: Range = None, reference: str = "bp", over: str = "layer") -> pd.DataFrame:
    """Acc., Sta., its floor, ceiling and half-power copies for each method.

    Args:
        ds: Results.
        copies: Range (n1, n2) of copies for Acc. and Sta.; all by default.
        reference: What estimates are held against.
        over: ``"layer"``: each layer's value, averaged over the layers that have one ("state" says how many
            are resolved). ``"model"``: computed from moments summed over layers; "ceiling, unit gain" is the
            model's ceiling with each layer rescaled to unit gain.

    Returns:
        One row for each method; values averaged over seeds where they are per seed.
    """
    found = _quantities(ds, copies, over=over, reference=reference)
    columns: dict[str, Any] = {}
    for name, values in found.items():
        if over == "model":
            columns[name] = values.values
        else:
            columns[name] = _resolved(found) if name == "state" else values.mean("layer").values
    if over == "model":
        unit = stats.alignment(ds, over="model", reference=reference, scale="unit-gain")
        columns["ceiling, unit gain"] = unit["ceiling"].where(unit["state"] == "resolved").values
    return pd.DataFrame(columns, index=pd.Index(ds["estimator"].values, name="method"))


def per_layer(ds: xr.Dataset, copies: Range = None, reference: str = "bp") -> pd.DataFrame:
    """Acc., Sta. and the law of every layer under every method.

    Args:
        ds: Results.
        copies: Range (n1, n2) of copies for Acc. and Sta.; all by default.
        reference: What estimates are held against.

    Returns:
        One row for each layer, in execution order, and method: layer, method, the columns of :func:`summary`, and
        the intervals of ceiling and half-power copies (``ceiling low``, ...).
    """
    found = _with_intervals(ds, copies, "layer", reference)
    order = ("layer", "estimator")
    layers, methods = (found["state"][name].values for name in order)
    names = {"layer": np.repeat(layers, methods.size), "method": np.tile(methods, layers.size)}
    return pd.DataFrame(names | {name: v.transpose(*order).values.ravel() for name, v in found.items()})


def whole_model(ds: xr.Dataset, copies: Range = None, reference: str = "bp") -> pd.DataFrame:
    """Likewise of the whole model: one row for each method."""
    found = _with_intervals(ds, copies, "model", reference)
    return pd.DataFrame({"method": ds["estimator"].values} | {name: v.values for name, v in found.items()})


def _with_intervals(ds: xr.Dataset, copies: Range, over: str, reference: str) -> dict[str, xr.DataArray]:
    """What tables show, and the ends of the law's intervals where there are any."""
    found = _quantities(ds, copies, over=over, reference=reference)
    law = stats.alignment(ds, over=over, reference=reference)
    said = law["state"].isin(["resolved", "bounded", "unresolved"])
    for name, key in (("ceiling", "ceiling"), ("half-power", "half_copies")):
        for end in ("low", "high"):
            found[f"{name} {end}"] = law[f"{key}_{end}"].where(said)
    return found


def _resolved(found: dict[str, xr.DataArray]) -> list[str]:
    """How many of the layers that are served have a resolved ceiling."""
    resolved = (found["state"] == "resolved").sum("layer").values
    served = found["Acc."].notnull().sum("layer").values
    return [f"{r} of {n} resolved" for r, n in zip(resolved, served, strict=True)]


def _quantities(ds: xr.Dataset, copies: Range, over: str, reference: str) -> dict[str, xr.DataArray]:
    chosen = {"over": over, "reference": reference}
    law = stats.alignment(ds, **chosen)
    mean = stats.accuracy(ds, copies=copies, **chosen).mean("seed")
    unknown = mean * np.nan
    few = copies is None and ds.sizes["copies"] < FEWEST
    spread = (
        {}
        if few
        else {
            "Sta.": stats.stability(ds, copies=copies, **chosen).mean("seed"),
            "floor": stats.stability_floor(ds, copies=copies, **chosen),
            "residual": stats.stability(ds, copies=copies, around="law", **chosen).mean("seed"),
        }
    )
    return {
        "Acc.": mean,
        **{name: spread.get(name, unknown) for name in ("Sta.", "floor", "residual")},
        "ceiling": law["ceiling"].where(law["state"] == "resolved"),
        "half-power": law["half_copies"].where(law["state"].isin(["resolved", "bounded"])),
        "state": law["state"],
    }


def by_layer(ds: xr.Dataset, reference: str = "bp") -> pd.DataFrame:
    """The alignment law of every layer under every method.

    Args:
        ds: Results.
        reference: What estimates are held against.

    Returns:
        One row for each layer and method. Columns: layer, method, cosine (mean over seeds at the last
        copies), ceiling, half_copies, price, gain (each with ``_low`` and ``_high``) and state.
    """
    law = stats.alignment(ds, reference=reference)
    last = stats.cosine(ds, reference=reference)
    at_end = _last(last).mean("seed").rename("cosine")
    names = ["ceiling", "half_copies", "price", "gain"]
    columns = [f"{n}{end}" for n in names for end in ("", "_low", "_high")] + ["state"]
    rows = []
    for layer in law["layer"].values:
        for method in law["estimator"].values:
            at = {"layer": layer, "estimator": method}
            row = {"layer": layer, "method": method, "cosine": float(at_end.sel(at))}
            row |= {c: law[c].sel(at).item() for c in columns}
            if row["state"] not in ("resolved", "bounded", "unresolved"):  # no interval: no number either
                row |= {c: float("nan") for c in columns if c.startswith(("ceiling", "half_copies"))}
            rows.append(row)
    return pd.DataFrame(rows)


def _last(da: xr.DataArray) -> xr.DataArray:
    """Value at the last copies that each estimator reached."""
    return da.isel(copies=da.notnull().cumsum("copies").argmax("copies"))


def notes(ds: xr.Dataset) -> list[str]:
    """What a reader must know besides the numbers: one sentence each."""
    from gradprobe.store.assemble import attribute

    found = []
    problem, batch = ds.attrs.get("problem", "the problem"), ds.attrs.get("batch_size")
    found.append(f"{problem}: one batch of {batch}; intervals and bands are over seeds, for this batch.")
    if ds.sizes["copies"] < FEWEST:
        found.append(
            f"Sta. needs {FEWEST} stored points, this run has {ds.sizes['copies']}: probe more copies."
        )
    found.extend(_of_the_law(ds))
    weights, levels = weights_part(ds), levels_part(ds)
    for label, share in stats.coverage(weights).to_series().items() if weights is not None else ():
        if share < 0.9995:
            found.append(
                f"{label}: the layers that it serves hold {share:.1%} of the gradient's squared length; in the whole "
                "model a layer that it refuses counts as zero."
            )
    engines = attribute(ds, "engines") or {}
    for engine in sorted(set(engines.values())):
        units = [key for key, chosen in engines.items() if chosen == engine]
        found.append(f"Engine {engine}: {'; '.join(units)}.")
    ways = attribute(ds, "smoothed") or {}
    scored = dict.fromkeys(key.rpartition(" | ")[2] for key, way in ways.items() if way == "score")
    if scored:
        found.append(
            f"Layers {', '.join(scored)}: backprop is not the derivative of the noisy loss (surrogate gradient, "
            "threshold, detach), so the smoothed reference is an independent run with exact scores, and 'bp' is a "
            "surrogate."
        )
    found.extend(
        f"doctor, {w['check']}: {w['sentence']}" for w in attribute(ds, "doctor") or [] if not w["noted"]
    )
    if ds.attrs.get("loss_per") == "copy":
        found.append("One loss for the whole copy: samples are not credited apart, which costs variance.")
    for name in attribute(ds, "unused_layers") or []:
        found.append(f"Layer {name!r} never runs on this batch and was left out.")
    for layer in attribute(ds, "layers") or []:
        if layer["note"]:
            found.append(f"Layer {layer['name']!r}: {layer['note']}.")
    for part in (p for p in (weights, levels) if p is not None):
        for label, refused in (attribute(part, "refused") or {}).items():
            found.extend(f"{label} does not serve layer {name!r}: {why}." for name, why in refused.items())
    status = ds["status"]
    for word, text in (
        ("failed", "failed"),
        ("partial", "computed in part"),
        ("missing", "not computed yet"),
    ):
        for label in ds["estimator"].values[(status == word).any(("parameter", "seed")).values]:
            where = np.unique(ds["layer"].values[(status.sel(estimator=label) == word).any("seed").values])
            found.append(f"{label}: {text} for {', '.join(where)}.")
    for label, reasons in (attribute(ds, "notes") or {}).items():
        found.extend(f"{label}, layer {layer!r}: {reason}." for reason, layer in reasons.items())
    for label, layers in (attribute(ds, "without_products") or {}).items():
        found.append(
            f"{label}: no products of seeds for {', '.join(layers)}: the seeds' sums would take too much room; probe "
            "fewer seeds, layers or methods at a time."
        )
    lost = ds["nonfinite"].max("copies").sum(("parameter", "seed"))
    for label in ds["estimator"].values[(lost > 0).values]:
        count = float(lost.sel(estimator=label))  # of a plan's whole estimates any share
        found.append(
            f"{label}: {count:,.10g} copies had a loss that was not finite; they count as 0, so gains are smaller by "
            "their share."
        )
    return found


def _of_the_law(ds: xr.Dataset) -> list[str]:
    """Where a run is too small for its intervals, and where its blocks are not what the law assumes."""
    if ds.sizes["copies"] < 2:
        return []
    found = []
    law = stats.alignment(ds)
    there = law["X"].notnull().any("seed")
    small = (there & ~law["enough"]).any("layer").values
    if small.any():
        found.append(f"{', '.join(ds['estimator'].values[small])}: {law.attrs['note']}.")
    try:
        tests = stats.goodness_of_fit(ds)
    except UsageError:  # blocks were left out by hand: nothing can be tested
        return found
    flagged = (tests["p_all"] < tests.attrs["level"]).values
    for e, label in enumerate(ds["estimator"].values):
        said = tests["finding"].values[e]
        for finding in dict.fromkeys(said[flagged[e]]):
            layers = ", ".join(tests["layer"].values[flagged[e] & (said == finding)])
            found.append(f"{label}, {layers}: {finding}, so the law and its intervals do not hold there.")
    return found
