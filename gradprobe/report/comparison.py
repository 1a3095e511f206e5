"""Several runs side by side as text in the terminal, and their table as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from gradprobe import stats
from gradprobe.report.batches import MODEL
from gradprobe.report.tables import Range
from gradprobe.report.text import MOST_ROWS, cell, interval
from gradprobe.store.along import apart, common_copies, further, unlike_sizes
from gradprobe.store.assemble import attribute

LAW = ("ceiling", "half_copies", "price")


@dataclass(frozen=True)
class Comparison:
    """Quality of every method in every run, at equal copies.

    Attributes:
        dim: ``checkpoint`` or ``sigma``.
        copies: Where the cosine is taken: the last that all methods have reached in all runs.
        range: Copies over which Acc. is taken.
        table: One row for each layer (and the whole model, first), method and run: ``layer``, ``method``, the run's
            label under the name of ``dim``, ``Acc.``, ``cosine``, ``ceiling``, ``half_copies``, ``price`` (each but
            Acc. with ``_low`` and ``_high``) and ``state``.
        notes: How the runs differ in size, and in what else.
    """

    dim: str
    copies: int
    range: tuple[int, int]
    table: pd.DataFrame
    notes: list[str]

    @property
    def model(self) -> pd.DataFrame:
        """The rows of the whole model."""
        return self.table[self.table["layer"] == MODEL].drop(columns="layer")

    @property
    def layers(self) -> pd.DataFrame:
        """The rows of single layers."""
        return self.table[self.table["layer"] != MODEL]


def compare_runs(ds: xr.Dataset, copies: Range = None, reference: str = "bp") -> Comparison:
    """The table of several runs, computed of each run alone at the same copies.

    Args:
        ds: Runs side by side (``gp.concat``).
        copies: Range for Acc.; by default from the first stored copies to the last that all have reached.
        reference: What estimates are held against.

    Raises:
        UsageError: Nothing was computed, or a range or reference is not in all runs.
    """
    dim, last = further(ds), common_copies(ds)
    span = (int(ds["copies"].values[0]), last) if copies is None else copies
    rows = [row for label, run in apart(ds) for row in _rows({dim: label}, run, last, span, reference)]
    table = pd.DataFrame(rows)
    order = {
        name: i for i, name in enumerate([MODEL, *dict.fromkeys(ds["layer"].values), *ds["estimator"].values])
    }
    ranks = table[["layer", "method"]].map(order.get)
    table = table.loc[ranks.sort_values(["layer", "method"], kind="stable").index].reset_index(drop=True)
    notes = [*unlike_sizes(ds), *(attribute(ds, "comparison") or [])]
    return Comparison(dim, last, span, table, notes)


def _rows(
    about: dict[str, Any], run: xr.Dataset, last: int, span: tuple[int, int], reference: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    methods = [str(e) for e in run["estimator"].values]
    for over in ("model", "layer"):
        at_end = stats.bands(stats.cosine(run, over, reference).sel(copies=last))
        found = {"Acc.": stats.accuracy(run, span, over, reference).mean("seed")}
        found |= {
            f"cosine{end}": at_end[name] for end, name in (("", "mean"), ("_low", "low"), ("_high", "high"))
        }
        law = _law(run, over, reference)
        for name in (f"{n}{end}" for n in LAW for end in ("", "_low", "_high")):
            found[name] = law[name] if law is not None else xr.full_like(at_end["mean"], np.nan)
        found["state"] = law["state"] if law is not None else xr.full_like(at_end["mean"], _FEW, dtype=object)
        parts = [MODEL] if over == "model" else [str(x) for x in at_end["layer"].values]
        cells = {
            k: v.transpose("estimator", ...).values.reshape(len(methods), -1).tolist()
            for k, v in found.items()
        }
        for j, part in enumerate(parts):
            for i, method in enumerate(methods):
                row = {"layer": part, "method": method} | about
                rows.append(row | {name: values[i][j] for name, values in cells.items()})
    return rows


_FEW = "too few copies"


def _law(run: xr.Dataset, over: str, reference: str) -> xr.Dataset | None:
    """The alignment law of one run; None where it has a single block."""
    if run.sizes["copies"] < 2 and run["stochastic"].values.any():
        return None
    return stats.alignment(run, over, reference)


def show_comparison(found: Comparison, console: Console) -> None:
    """Print the table of several runs, whole model first, and what else differs between them.

    Args:
        found: The table.
        console: Where to print.
    """
    span = f"Acc. over {found.range[0]:,} to {found.range[1]:,} copies, cosine at {found.copies:,}"
    console.print(_printed(found.model, found.dim, f"Whole model at each {found.dim} ({span})"))
    if len(found.layers) <= MOST_ROWS:
        console.print(_printed(found.layers, found.dim, f"Layers at each {found.dim}"))
    console.print(
        "With 95 % intervals over seeds, for this batch; ceiling: the cosine that no number of copies passes; "
        "half-power: copies at which 1/cos^2 is twice its limit; bounds alone where it is not resolved.",
        highlight=False,
    )
    for note in found.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def write_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Write the table of several runs as CSV.

    Args:
        found: The table.
        folder: Where to; made if it is not there.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "comparison.csv"
    found.table.to_csv(file, index=False)
    return [file]


def _printed(table: pd.DataFrame, dim: str, title: str) -> Table:
    out = Table(title=title, title_justify="left")
    names = [name for name in ("layer", "method") if name in table.columns]
    for name in (*names, dim):
        out.add_column(name, no_wrap=True)
    for name in ("Acc.", "cosine", "ceiling", "half-power copies", "state"):
        out.add_column(name, justify="right")
    before: list[str] = []
    for row in table.to_dict("records"):
        own = [str(row[name]) for name in names]
        if before and before != own:
            out.add_section()
        shown = ["" if own[: i + 1] == before[: i + 1] else x for i, x in enumerate(own)]
        values = [interval(row, name) for name in ("cosine", "ceiling", "half_copies")]
        label = f"{row[dim]:g}" if isinstance(row[dim], float) else str(row[dim])
        out.add_row(*shown, label, cell("Acc.", row["Acc."]), *values, str(row["state"]))
        before = own
    return out
