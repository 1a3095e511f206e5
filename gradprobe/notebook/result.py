"""A result of statistics as a table: a value with its ends for every layer and method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from gradprobe.core.markup import MOST_COLUMNS, MOST_ROWS, heading, paragraph, table
from gradprobe.notebook.numbers import number, with_ends

ROWS = ("layer", "group", "parameter")
_FITS = ({"over", "reference", "scale"}, {"over", "cost"}, {"over", "scale", "batches"})
_ASIDE = {"exact", "products", "enough", "fitted_copies", "seeds", "std", "smoothed_state"}
"""What a table leaves to the Dataset below it."""

_TRIPLES = (("{}", "{}_low", "{}_high"), ("mean", "low", "high"), ("value", "low", "high"))
_SPREAD = 8
"""Most places along a further dimension that get a column each."""


def is_result(found: xr.Dataset | xr.DataArray) -> bool:
    """Whether it is what a function of ``gradprobe.stats`` returned about a run."""
    if isinstance(found, xr.DataArray):
        ours = "estimator" in found.dims and {"target", "stochastic"} <= set(found.coords)
        return ours and "long_name" in found.attrs and "step" not in found.dims
    asked = set(found.attrs)
    ours = "estimator" in found.dims and {"target", "stochastic"} <= set(found.coords) and "over" in asked
    return ours or any(fits <= asked for fits in _FITS)


@dataclass(frozen=True)
class Column:
    """One column: where its text comes from.

    Attributes:
        title: What it is called.
        dims: Dimensions that its values have.
        cell: Text at a place {dim: index}.
        word: Whether it holds words.
    """

    title: str
    dims: tuple[str, ...]
    cell: Callable[[dict[str, int]], str]
    word: bool = False


def result_parts(found: xr.Dataset | xr.DataArray) -> list[str]:
    """Pieces of HTML: what was asked, the table, what was averaged or left out."""
    values = found.to_dataset(name=found.name or "value") if isinstance(found, xr.DataArray) else found
    values, said = _reduced(values, isinstance(found, xr.DataArray))
    across = [c for c in _columns(values)]
    row = next((d for d in ROWS if d in values.dims), None)
    parts = [_heading(found, across), _table(values, across, row)]
    alone = [f"{c.title}: {text}" for c in across if not c.dims and (text := c.cell({}))]
    if alone and (row or "estimator" in values.dims):
        parts.append(paragraph("; ".join(alone)))
    if "level" in found.attrs and any("_low" in str(n) or n == "low" for n in values):
        said.append(
            f"In brackets: {100 * float(found.attrs['level']):g} % interval over seeds, for this batch."
        )
    if found.attrs.get("note"):
        said.append(f"{found.attrs['note']}.")
    return [*parts, *(paragraph(line, small=True) for line in said)]


def _heading(found: xr.Dataset | xr.DataArray, columns: Sequence[Column]) -> str:
    a = found.attrs
    name = str(a.get("long_name") or (found.name if isinstance(found, xr.DataArray) else "") or "")
    if "first" in a and "second" in a:
        name = f"{a['first']} against {a['second']}"
    if not name:
        held = dict.fromkeys(c.title.partition(",")[0] for c in columns if not c.word and c.dims)
        name = ", ".join(list(held)[:4]) or "result"
    copies = f"at {a['copies']:,} copies" if isinstance(a.get("copies"), int) and a["copies"] else ""
    span = f"over {a['range'][0]:,} to {a['range'][1]:,} copies" if "range" in a else ""
    facts = [f"over {a['over']}s" if a.get("over") in ROWS else "whole model" * ("over" in a), copies, span]
    facts += [f"reference {a['reference']}"] if "reference" in a else []
    facts += [
        "unit gain" * (a.get("scale") == "unit-gain"),
        f"around the {a.get('around')}" * ("around" in a),
    ]
    return heading(name, *facts)


def _reduced(values: xr.Dataset, keep_seeds: bool) -> tuple[xr.Dataset, list[str]]:
    """Without seeds (their mean, or left out where there are means already) and at one place of long dimensions."""
    said: list[str] = []
    if "seed" in values.dims:
        if keep_seeds:
            said.append(f"Mean over {values.sizes['seed']} seeds.")
            values = values.mean("seed", keep_attrs=True)
        else:
            values = values.drop_vars([n for n, v in values.items() if "seed" in v.dims])
    for dim in [str(d) for d in values.dims if d not in (*ROWS, "estimator")]:
        many = values.sizes[dim]
        if many > _SPREAD or not many:
            last = values[dim].values[-1] if dim in values.coords and many else many - 1
            values = values.isel({dim: slice(-1, None)})
            said.append(f"At {dim} = {number(dim, last)}, the last of {many:,}.")
    return values, said


def _columns(values: xr.Dataset) -> list[Column]:
    """One for each quantity, and for each place along further dimensions; words last."""
    names = [str(n) for n in values]
    taken: set[str] = set(_ASIDE)
    found: list[Column] = []
    for name in names:
        if name in taken:
            continue
        triple = [n for n in (_triple(name, names)) if n]
        taken |= {name, *triple}
        for at in _places(values[name]):
            found.append(_column(values, name, triple, at))
    return sorted(found, key=lambda c: c.word)


def _triple(name: str, names: list[str]) -> list[str]:
    """The variables with the ends of another's interval."""
    for own, low, high in _TRIPLES:
        ends = [low.format(name), high.format(name)]
        if own.format(name) == name and set(ends) <= set(names):
            return ends
    return []


def _places(of: xr.DataArray) -> list[dict[str, Any]]:
    """Places along dimensions that are neither rows nor methods."""
    places: list[dict[str, Any]] = [{}]
    for dim in [str(d) for d in of.dims if d not in (*ROWS, "estimator")]:
        labels = of[dim].values if dim in of.coords else range(of.sizes[dim])
        places = [p | {dim: (i, label)} for p in places for i, label in enumerate(labels)]
    return places


def _column(values: xr.Dataset, name: str, ends: list[str], at: dict[str, Any]) -> Column:
    index = {dim: i for dim, (i, _) in at.items()}
    held = [values[n].isel({d: i for d, i in index.items() if d in values[n].dims}) for n in (name, *ends)]
    title = name.replace("_", " ")
    if at:
        of = ", ".join(
            str(label) if isinstance(label, str) else f"{dim} {number(dim, label)}"
            for dim, (_, label) in at.items()
        )
        title = of if name in ("value", "mean") or len(values.data_vars) == 1 else f"{title}, {of}"

    dims = tuple(str(d) for d in held[0].dims)
    numbers = [h.transpose(*dims).values for h in held]

    def cell(place: dict[str, int]) -> str:
        own = [n[tuple(place[d] for d in dims)] for n in numbers]
        return with_ends(name, *own) if ends else number(name, own[0])

    return Column(title, dims, cell, held[0].dtype.kind in "UO")


def _table(values: xr.Dataset, columns: list[Column], row: str | None) -> str:
    """Rows by methods where there is one quantity; else a line for each row and method."""
    methods = [str(e) for e in values["estimator"].values] if "estimator" in values.dims else []
    rows = [str(r) for r in values[row].values] if row else []
    main = [c for c in columns if c.dims]
    quantities = [c for c in main if not c.word]
    if row and methods and len(quantities) == 1:
        state = next((c for c in main if c.title == "state" and set(c.dims) == {row, "estimator"}), None)
        return _crossed(quantities[0], state, row, rows, methods)
    if not (row or methods):
        return table(["", "value"], [[c.title, c.cell({})] for c in columns], more="quantities")
    cut = main[:MOST_COLUMNS]
    cells: list[list[str]] = []
    for r, name in enumerate(rows or [""]):
        for m, method in enumerate(methods or [""]):
            at = ({row: r} if row else {}) | ({"estimator": m} if methods else {})
            named = [name] * bool(row) + [method] * bool(methods)
            cells.append([*named, *(c.cell(at) for c in cut)] if len(cells) < MOST_ROWS else [])
    named = ([row] if row else []) + ["method"] * bool(methods)
    words = [len(named) + i for i, c in enumerate(cut) if c.word]
    return table([*named, *(c.title for c in cut)], cells, names=len(named), words=words)


def _crossed(of: Column, state: Column | None, row: str, rows: list[str], methods: list[str]) -> str:
    def cell(r: int, m: int) -> str:
        at = {row: r, "estimator": m}
        word = state.cell(at) if state is not None else ""
        return " ".join(filter(None, [of.cell(at), word if word != "resolved" else ""]))

    shown = methods[:MOST_COLUMNS]
    more = [f"... and {len(methods) - len(shown)} more"] * (len(methods) > len(shown))
    body = [
        [name, *(cell(r, m) for m in range(len(shown))), *[""] * len(more)] if r < MOST_ROWS else []
        for r, name in enumerate(rows)
    ]
    return table([row, *shown, *more], body, more=f"{row}s")
