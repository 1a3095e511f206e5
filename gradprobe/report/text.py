"""A run as text in the terminal, and its tables as files."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from gradprobe.report.intermediates import SAID, intermediates, size, times
from gradprobe.report.plain_words import verdict
from gradprobe.report.tables import Range, by_layer, notes, summary
from gradprobe.store.levels import levels_beside, main_part, reference_of_levels

MOST_ROWS = 60
ROUNDING = 1e-14
"""What is smaller is rounding of float64, and written as zero."""


def show(ds: xr.Dataset, console: Console, copies: Range = None, reference: str = "bp") -> None:
    """Print what a run says in plain words, then its tables and notes.

    Args:
        ds: Results.
        console: Where to print.
        copies: Range of copies for Acc. and Sta.
        reference: What estimates are held against.
    """
    for sentence in verdict(ds, reference).lines:
        console.print(f"- {sentence}", highlight=False, markup=False)
    console.print()
    whole, levels = ds, levels_beside(ds)
    ds, reference = main_part(ds, reference)
    shown = (int(ds["copies"][0]), int(ds["copies"][-1])) if copies is None else copies
    span = f"Acc. and Sta. over {shown[0]} to {shown[1]} copies, mean over seeds"
    for over, title in (("layer", "Mean over layers"), ("model", "Whole model")):
        console.print(_summary_table(summary(ds, copies, reference, over), f"{title} ({span})"))
    console.print(_LEGEND, highlight=False)
    details = by_layer(ds, reference)
    if len(details) <= MOST_ROWS:
        console.print(_layer_table(details))
    taken = intermediates(ds)
    if len(taken):
        console.print(_storage_table(taken))
        console.print(SAID, highlight=False)
    if levels is not None:
        held = reference_of_levels(levels, reference)
        title = f"Levels of noise, held against {held}, 95 % intervals over seeds"
        console.print(_layer_table(by_layer(levels, held), title))
    for note in notes(whole):
        console.print(f"- {note}", highlight=False, markup=False)


def write(ds: xr.Dataset, folder: Path, copies: Range = None, reference: str = "bp") -> list[Path]:
    """Write the tables of a run as CSV.

    Args:
        ds: Results.
        folder: Where to; made if it is not there.
        copies: Range of copies for Acc. and Sta.
        reference: What estimates are held against.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    levels = levels_beside(ds)
    ds, reference = main_part(ds, reference)
    tables = {
        "layer-means": summary(ds, copies, reference, "layer").reset_index(),
        "model": summary(ds, copies, reference, "model").reset_index(),
        "layers": by_layer(ds, reference),
    }
    if len(taken := intermediates(ds)):
        tables["storage"] = taken
    if levels is not None:
        tables["levels"] = by_layer(levels, reference_of_levels(levels, reference))
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return [folder / f"{name}.csv" for name in tables]


def _summary_table(table: pd.DataFrame, title: str) -> Table:
    out = Table(title=title, title_justify="left")
    out.add_column("method", no_wrap=True)
    for quantity in table.columns:
        out.add_column(quantity, justify="right")
    for method, row in table.iterrows():
        out.add_row(str(method), *(cell(str(name), value) for name, value in row.items()))
    return out


_LEGEND = (
    "floor: the Sta. that the curvature of a noiseless curve gives alone; residual: rms around the alignment law; "
    "ceiling: the cosine that no number of copies passes; half-power: copies at which 1/cos^2 is twice its limit; "
    "empty: not resolved. Acc. and Sta. are of nested prefixes: do not compare Sta. with fresh estimates."
)


def _layer_table(
    table: pd.DataFrame, title: str = "Alignment law of each layer, 95 % intervals over seeds"
) -> Table:
    out = Table(title=title, title_justify="left")
    for name in ("layer", "method"):
        out.add_column(name, no_wrap=True)
    for name in ("cosine", "ceiling", "half-power copies", "price", "gain", "state"):
        out.add_column(name, justify="right")
    before = None
    for row in table.to_dict("records"):
        layer, method = row["layer"], row["method"]
        if before not in (None, layer):
            out.add_section()
        intervals = [interval(row, name) for name in ("ceiling", "half_copies")]
        plain = [cell(name, row[name]) for name in ("price", "gain", "state")]
        shown = "" if layer == before else str(layer)
        out.add_row(shown, str(method), cell("cosine", row["cosine"]), *intervals, *plain)
        before = layer
    return out


def _storage_table(table: pd.DataFrame) -> Table:
    out = Table(title="Intermediates of a copy", title_justify="left")
    for column in ("method", "layer"):
        out.add_column(column, no_wrap=True)
    for column in ("as kept", "as numbers", "times less"):
        out.add_column(column, justify="right")
    for method, layer, kept, numbers, less in table.itertuples(index=False):
        out.add_row(method, layer, size(kept), size(numbers), times(less))
    return out


def interval(row: Mapping[Hashable, Any], name: str, kind: str = "") -> str:
    """A value with its ends; ``kind`` says how they are written if the name does not."""
    value, low, high = (cell(kind or name, row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})".strip() if low or high else value


def cell(name: str, value: Any) -> str:
    """A number as it is written in a table: copies whole, others to three digits, nothing for NaN."""
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf"
    if name in ("half-power", "half_copies", "price"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{value:.3f}" if abs(value) >= 0.01 or abs(value) < ROUNDING else f"{value:.1e}"
