"""A run as text in the terminal, and its tables as files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from gradprobe.report.tables import Range, by_layer, notes, summary

MOST_ROWS = 60


def show(ds: xr.Dataset, console: Console, copies: Range = None, reference: str = "bp") -> None:
    """Print the tables and notes of a run.

    Args:
        ds: Results.
        console: Where to print.
        copies: Range of copies for Acc. and Sta.
        reference: What estimates are held against.
    """
    shown = (int(ds["copies"][0]), int(ds["copies"][-1])) if copies is None else copies
    console.print(_summary_table(summary(ds, copies, reference), shown))
    details = by_layer(ds, reference)
    if len(details) <= MOST_ROWS:
        console.print(_layer_table(details))
    for note in notes(ds):
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
    table = summary(ds, copies, reference)
    table.columns = [f"{quantity} ({group})" for group, quantity in table.columns]
    table.to_csv(folder / "summary.csv")
    by_layer(ds, reference).to_csv(folder / "layers.csv")
    return [folder / "summary.csv", folder / "layers.csv"]


def _summary_table(table: pd.DataFrame, shown: tuple[int, int]) -> Table:
    title = f"Acc. and Sta. over {shown[0]} to {shown[1]} copies (nested prefixes, mean over seeds)"
    out = Table(title=title, title_justify="left", caption=_LEGEND, caption_justify="left")
    out.add_column("method", no_wrap=True)
    short = {"mean over layers": "layers", "whole model": "model"}
    for group, quantity in table.columns:
        out.add_column(f"{short[group]}\n{quantity.replace(', ', chr(10))}", justify="right")
    for method, row in table.iterrows():
        out.add_row(str(method), *(_cell(name, value) for (_, name), value in row.items()))
    return out


_LEGEND = (
    "floor: Sta. that the curvature of a noiseless curve gives alone; residual: rms around the alignment law; "
    "ceiling: cosine that no number of copies passes; half-power: copies at which 1/cos^2 is twice its limit. "
    "layers: mean over layers. Empty: not resolved."
)


def _layer_table(table: pd.DataFrame) -> Table:
    out = Table(title="Alignment law, 95 % intervals over seeds", title_justify="left")
    for name in ("layer", "method", "cosine", "ceiling", "half-power copies", "price", "gain", "state"):
        out.add_column(name, no_wrap=name in ("layer", "method"), justify="left" if name in ("layer", "method") else "right")
    before = None
    for (layer, method), row in table.iterrows():
        if before not in (None, layer):
            out.add_section()
        cells = [_interval(row, q) for q in ("ceiling", "half_copies", "price", "gain")]
        out.add_row(layer if layer != before else "", method, _cell("cosine", row["cosine"]), *cells, row["state"])
        before = layer
    return out


def _interval(row: pd.Series, name: str) -> str:
    value, low, high = (_cell(name, row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]".strip() if low or high else value


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf"
    if name in ("half-power", "half_copies", "price"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"
