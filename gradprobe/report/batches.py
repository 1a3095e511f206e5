"""What several batches, or the gradient over the data, add to a report: data or copies, which would help more?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from gradprobe import stats
from gradprobe.report.text import MOST_ROWS, interval

MODEL = "whole model"


def knows_data(ds: xr.Dataset) -> bool:
    """Whether results say how much of a direction's error is the batch's."""
    return ds.sizes.get("batch", 1) > 1 or "dataset" in ds["reference"].values


def data_table(ds: xr.Dataset) -> pd.DataFrame:
    """Data or copies, of every layer and of the model under every method with noise.

    Args:
        ds: Results of several batches, or of one with the reference "dataset".

    Returns:
        One row for each layer and method: layer, method, ``data_share copies_variance crossover cosine`` (each with
        ``_low`` and ``_high``; the cosine at the last copies) and state.
    """
    over = stats.data_or_copies(ds)
    found = {str(name): over.sel(layer=name) for name in over["layer"].values}
    found[MODEL] = stats.data_or_copies(ds, "model")
    names = ("data_share", "copies_variance", "crossover", "cosine")
    rows = []
    for layer, values in found.items():
        for method in ds["estimator"].values[ds["stochastic"].values.astype(bool)]:
            one = values.sel(estimator=method)
            row: dict[str, Any] = {"layer": layer, "method": str(method)}
            row |= {f"{n}{end}": float(one[f"{n}{end}"]) for n in names for end in ("", "_low", "_high")}
            rows.append(row | {"state": str(one["state"].values)})
    return pd.DataFrame(rows)


def show_batches(ds: xr.Dataset, console: Console, folder: Path) -> list[Path]:
    """Print the table of data and copies and write it; nothing where one batch is all that is known.

    Args:
        ds: Results.
        console: Where to print.
        folder: Where files go.

    Returns:
        The files.
    """
    if not knows_data(ds):
        return []
    table = data_table(ds)
    many, last = ds.sizes.get("batch", 1), int(ds["copies"].values[-1])
    if len(table) <= MOST_ROWS:
        console.print(
            _printed(table, f"Data or copies, {many} batch{'es' * (many > 1)} of {ds.attrs['batch_size']}")
        )
        console.print(
            "data: share of a batch's squared gradient that is noise of the data; n*: copies beyond which more data "
            f"help more than more copies; cosine: with the gradient of unlimited data, after {last:,} copies of one "
            "batch.",
            highlight=False,
        )
    if many > 1:
        console.print(
            f"What follows is of the first of {many} batches; name the folder of another for its own."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "data-or-copies.csv"
    table.to_csv(file, index=False)
    return [file]


def _printed(table: pd.DataFrame, title: str) -> Table:
    out = Table(title=title, title_justify="left")
    for name in ("layer", "method"):
        out.add_column(name, no_wrap=True)
    for name in ("data", "variance of a copy", "n*", "cosine", "state"):
        out.add_column(name, justify="right")
    before = None
    for row in table.to_dict("records"):
        if before not in (None, row["layer"]):
            out.add_section()
        kinds = {"data_share": "", "copies_variance": "price", "crossover": "price", "cosine": ""}
        values = [interval(row, name, kind) for name, kind in kinds.items()]
        shown = "" if row["layer"] == before else str(row["layer"])
        out.add_row(shown, str(row["method"]), *values, str(row["state"]))
        before = row["layer"]
    return out
