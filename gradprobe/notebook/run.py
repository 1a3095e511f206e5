"""A run in a few lines: what it is, how far it came, and the quality of every layer under every method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.core.markup import MOST_COLUMNS, MOST_ROWS, heading, lines, listing, paragraph, table
from gradprobe.notebook.numbers import number, with_ends
from gradprobe.plots._choice import choose_layers
from gradprobe.report.claims import claims, laws_of, sound
from gradprobe.report.grouping import model_sentences
from gradprobe.report.kinds import EXACT, TARGET, Targets
from gradprobe.stats._intervals import mean_se
from gradprobe.stats._moments import moments
from gradprobe.stats.cosine_similarity import cosine_values
from gradprobe.store.along import named
from gradprobe.store.assemble import attribute

MODEL = "whole model"
OWN_DIMS = {"reference", "estimator", "parameter", "seed", "copies"}
"""Dimensions of the moments of one run; whatever else they have are runs side by side."""


def is_run(ds: xr.Dataset) -> bool:
    """Whether it is a run, as :mod:`gradprobe.store.schema` describes it."""
    return "block" in ds.attrs and {"dot", "sqnorm", "status"} <= set(ds) and set(ds["dot"].dims) >= OWN_DIMS


def run_parts(ds: xr.Dataset) -> list[str]:
    """Pieces of HTML, from the heading to the table."""
    one, where = one_of(ds)
    reference = "bp" if "bp" in one["reference"].values else str(one["reference"].values[0])
    try:
        laws = laws_of(one, reference)
    except UsageError:  # there is no law of these moments
        laws = {}
    parts = [heading(*facts(ds))]
    parts += [paragraph(line) for line in how_far(ds)]
    if where:
        parts.append(paragraph(f"shown: {where}; select with .sel for another.", small=True))
    return [*parts, listing(in_words(one, reference, laws)), *quality(one, reference, laws)]


def one_of(ds: xr.Dataset) -> tuple[xr.Dataset, str]:
    """One of runs side by side, and which one that is ("" for a single run).

    As in reports: of several batches the first, of several checkpoints or sigmas the last.
    """
    further = [str(d) for d in ds["sqnorm"].dims if d not in OWN_DIMS]
    place = {d: 0 if d == "batch" else -1 for d in further}
    names = {d: ds[d].values[place[d]] if d in ds.coords else place[d] % ds.sizes[d] for d in further}
    return ds.isel(place), ", ".join(f"{d} {name} of {ds.sizes[d]}" for d, name in names.items())


def facts(ds: xr.Dataset) -> list[str]:
    """The problem's name, then what was probed, each in a few words."""
    many = {d: ds.sizes[d] for d in ("estimator", "seed")}
    layers = len(np.unique(ds["order"].values))
    size, refs = ds.attrs.get("batch_size"), ", ".join(map(str, ds["reference"].values))
    further = [f"{ds.sizes[d]} along {d}" for d in ds["sqnorm"].dims if d not in OWN_DIMS]
    return [
        named(ds) or "run",
        f"batch of {size}" if size else "",
        f"{many['estimator']} method{'s' * (many['estimator'] != 1)}",
        f"{layers} layer{'s' * (layers != 1)}",
        f"{int(ds['copies'].values[-1]):,} copies × {many['seed']} seed{'s' * (many['seed'] != 1)}",
        f"against {refs}",
        *further,
    ]


def how_far(ds: xr.Dataset) -> list[str]:
    """What is not as it was asked for: stopped, failed, in part, missing; warnings of doctor."""
    said = []
    if ds.attrs.get("stopped"):
        more = "the same call goes on from here" if "path" in ds.attrs else "this is what there is"
        said.append(f"Stopped before it was done; {more}.")
    words = {"failed": "failed", "partial": "in part", "missing": "not computed yet"}
    status = ds["status"]
    for word, text in words.items():
        there = (status == word).any([d for d in status.dims if d != "estimator"]).values
        if there.any():
            share = float((status == word).mean())
            said.append(
                f"{text.capitalize()} ({share:.0%}): {', '.join(map(str, ds['estimator'].values[there]))}."
            )
    warned = [w for w in attribute(ds, "doctor") or [] if not w["noted"]]
    said += [f"Doctor, {w['check']}: {w['sentence']}" for w in warned[:3]]
    return said + ([f"... and {len(warned) - 3} more warnings of doctor."] if len(warned) > 3 else [])


def in_words(ds: xr.Dataset, reference: str, laws: Mapping[str, xr.Dataset]) -> list[str]:
    """What ``gp.verdict`` says of the whole model; its layers take longer than a display may."""
    if not laws:
        return []
    found = claims(ds, "model", reference, Targets(TARGET, EXACT), laws, sound(ds, reference))
    return model_sentences(found.to_dict("records"), TARGET)


def quality(ds: xr.Dataset, reference: str, laws: Mapping[str, xr.Dataset]) -> list[str]:
    """The table layers x methods of one run, and what its numbers are."""
    methods = [str(e) for e in ds["estimator"].values]
    shown = range(min(len(methods), MOST_COLUMNS))
    whole, each = (_numbers(ds, over, reference, laws.get(over)) for over in ("model", "layer"))
    names = choose_layers(ds, None)
    rows = [[MODEL, *(_cell(whole, e, 0) for e in shown)]]
    for place, name in enumerate(names):
        rows.append([name, *(_cell(each, e, place) for e in shown)] if len(rows) < MOST_ROWS else [])
    said = [
        f"First line: cosine with {reference} at the last copies, mean over seeds. Second: ceiling, what no number "
        "of copies passes, with its 95 % interval over seeds, or why there is none. All for this batch."
    ]
    if len(methods) > len(shown):
        said.append(f"... and {len(methods) - len(shown)} more methods.")
    head = ["layer", *methods[: len(shown)]]
    return [table(head, rows, more="layers", raw=True), *(paragraph(line, small=True) for line in said)]


def _numbers(ds: xr.Dataset, over: str, reference: str, law: xr.Dataset | None) -> dict[str, Any]:
    """Cosine at the last copies that each method reached, ceiling and state, ``[estimator, part]``."""
    m = moments(ds, over, reference)
    cosine = mean_se(np.moveaxis(cosine_values(m), -2, -1))[0]
    there = np.isfinite(cosine)
    last = np.where(there.any(-1), cosine.shape[-1] - 1 - there[..., ::-1].argmax(-1), 0)
    found: dict[str, Any] = {"cosine": np.take_along_axis(cosine, last[..., None], -1)[..., 0]}
    if law is None:
        return found
    names = ("ceiling", "ceiling_low", "ceiling_high", "state")
    dims = ("estimator", "layer")[: law["state"].ndim]
    return found | {n: law[n].transpose(*dims).values.reshape(found["cosine"].shape) for n in names}


def _cell(found: dict[str, Any], method: int, part: int) -> str:
    cosine = number("cosine", found["cosine"][method, part])
    if "state" not in found:
        return lines(cosine)
    state = str(found["state"][method, part])
    ends = with_ends("ceiling", *(found[f"ceiling{end}"][method, part] for end in ("", "_low", "_high")))
    return lines(cosine, {"resolved": ends, "bounded": f"{state} {ends}"}.get(state, state))
