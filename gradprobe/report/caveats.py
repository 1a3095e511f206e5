"""What must be known besides the claims: unequal gains, small or incomplete runs, what intervals mean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from gradprobe.report import kinds as c
from gradprobe.report.wording import MOST_NAMES, cosine_text, listed, name_text
from gradprobe.stats._law import ENOUGH_BLOCKS, ENOUGH_SEEDS
from gradprobe.store.assemble import attribute
from gradprobe.store.levels import level_mask

UNEVEN = 0.02
"""Loss of the model's ceiling by unequal gains that is worth a sentence: about what 0.9 against 0.92 is."""


def uneven_sentences(lost: pd.DataFrame, gains: xr.Dataset) -> list[str]:
    """One sentence for each method whose layers' gains differ so that the model's direction suffers.

    Args:
        lost: Result of :func:`gradprobe.report.claims.uneven`.
        gains: ``alignment`` of the layers.
    """
    worse = lost[(lost["p"] <= c.ALPHA) & (lost["unit"] - lost["raw"] > UNEVEN)]
    found = []
    for row in worse.to_dict("records"):
        own = gains.sel(estimator=row["method"])
        known = own["gain_low"].values > 0
        values, names = own["gain"].values[known], own["layer"].values[known]
        low, high = int(values.argmin()), int(values.argmax())
        span = f"from {values[low]:.2g} in {name_text(names[low])} to {values[high]:.2g} in {name_text(names[high])}"
        found.append(
            f"{name_text(row['method'])}: gains differ between layers, {span}. That holds the whole model's "
            f"ceiling at {cosine_text(row, 'raw')}; with each layer rescaled to unit gain it is "
            f"{cosine_text(row, 'unit')}."
        )
    return found


def caveats(ds: xr.Dataset, reference: str, table: pd.DataFrame, tests: xr.Dataset | None) -> list[str]:
    """What a reader must know besides; the last says what it is all of.

    Args:
        ds: Results of one batch.
        reference: What estimates are held against.
        table: All claims.
        tests: Result of :func:`gradprobe.report.claims.sound`.
    """
    return [
        *_unsound(tests),
        *_small(table),
        *_surrogate(ds, reference, table),
        *_incomplete(ds, table),
        *_levels(ds),
        *_warned(ds),
        _scope(ds, reference, table),
    ]


def _unsound(tests: xr.Dataset | None) -> list[str]:
    if tests is None:
        return ["Blocks of this run were left out, so it was not tested whether the law holds."]
    found = []
    for e, method in enumerate(tests["estimator"].values):
        flagged = tests["broken"].values[e]
        finding = tests["finding"].values[e]
        for text in dict.fromkeys(finding[flagged]):
            layers = tests["layer"].values[flagged & (finding == text)]
            found.append(
                f"{name_text(method)} in {some(layers)}: {text}, so nothing is claimed there or of the model."
            )
    return found


def _small(table: pd.DataFrame) -> list[str]:
    if not ((table["kind"] == c.SMALL) & table["stochastic"]).any():
        return []
    return [
        f"Claims need {ENOUGH_SEEDS} seeds of {ENOUGH_BLOCKS} blocks, for which their intervals were checked; probe "
        "more seeds or copies."
    ]


def _surrogate(ds: xr.Dataset, reference: str, table: pd.DataFrame) -> list[str]:
    ways = attribute(ds, "smoothed") or {}
    scored = list(dict.fromkeys(key.rpartition(" | ")[2] for key, way in ways.items() if way == "score"))
    found = []
    if scored and reference == "bp":
        found.append(
            f"Backprop is itself a surrogate in {some(scored)}: a low ceiling says that the two differ, not which is "
            "wrong."
        )
    if reference == "dataset" and (table["kind"] == c.BIAS).any():
        found.append(
            "A ceiling held against the data's gradient lacks, too, what this batch's own gradient lacks."
        )
    biased = ((table["kind"] == c.BIAS) & ~table["exact"]).any()
    if biased and reference == "bp" and "smoothed" not in ds["reference"].values:
        found.append(
            "Smoothing bias is not told from bias of the encoding: that takes reference=('bp', 'smoothed')."
        )
    return found


def _incomplete(ds: xr.Dataset, table: pd.DataFrame) -> list[str]:
    found = ["The run was stopped: it is about what was computed by then."] if ds.attrs.get("stopped") else []
    status = ds["status"].transpose("estimator", "parameter", "seed").values
    for word, text in (("failed", "failed"), ("partial", "computed in part"), ("missing", "not computed")):
        for e, method in enumerate(ds["estimator"].values):
            mine = status[e] == word
            if mine.any() and not (word == "missing" and mine.all()):
                units = pd.DataFrame(mine, index=ds["layer"].values).groupby(level=0, sort=False).any()
                where = some(units.index[units.any(axis=1)])
                pairs = f"{int(units.values.sum())} of {units.size} pairs of layer and seed"
                found.append(f"{name_text(method)}: {pairs} {text}, in {where}.")
    lost = np.asarray(ds["nonfinite"].max("copies").sum(("parameter", "seed")).values)
    for method, count in zip(ds["estimator"].values, lost, strict=True):
        if count > 0:
            found.append(
                f"{name_text(method)}: {count:,.10g} copies had a loss that was not finite; they count as 0."
            )
    refused = attribute(ds, "refused") or {}
    if any(refused.values()):
        found.append("In the whole model a layer that a method does not serve counts as 0.")
    return found


def _levels(ds: xr.Dataset) -> list[str]:
    if not level_mask(ds).all():
        return []
    return ["These are levels of noise, no weights: the whole model is all of them together."]


def _warned(ds: xr.Dataset) -> list[str]:
    warned = attribute(ds, "doctor") or []
    if not warned:
        return []
    checks = dict.fromkeys(str(w["check"]) for w in warned)
    return [f"Doctor warned of {listed(list(checks))} before the run; the report's notes say why."]


def _scope(ds: xr.Dataset, reference: str, table: pd.DataFrame) -> str:
    batch = ds.attrs.get("batch_size")
    of = f"one batch of {batch}" if batch else "one batch"
    problem = ds.attrs.get("problem")
    said = f"All of this is of {f'{name_text(problem)}, ' * bool(problem)}{of}, held against {reference}."
    if not (table["kind"].isin(c.CLAIMED) & ~table["exact"]).any():
        return said
    return (
        f"{said} Cosines are read off the fitted law: tables of means over seeds may differ a little. Brackets are "
        f"95 % intervals of single numbers over seeds. A claim of one kind is false in any layer "
        f"with a chance of {100 * c.ALPHA:g} % at most, and of the whole model with as much again."
    )


def some(names: Iterable[object]) -> str:
    """Names, or how many there are."""
    known = list(names)
    return listed(known) if len(known) <= MOST_NAMES else f"{len(known)} layers"
