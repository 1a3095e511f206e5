"""``gradprobe report RUN1 RUN2 ...``: several runs of one model side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

Range = tuple[int, int] | None

FIGURES = {"training": "cosine", "training-ceiling": "ceiling"}
"""Stems of the figures -> what they show."""


def side_by_side(runs: Sequence[Path], labels: str | None, other_batches: bool) -> xr.Dataset:
    """Runs along checkpoints, or along sigma where all are of the same weights; of several batches the first.

    Args:
        runs: Run directories or exported files.
        labels: What they are called, comma-separated; None: what they know.
        other_batches: Allow different batches.

    Raises:
        UsageError: They cannot be compared.
    """
    from gradprobe.store.comparison import concat, dimension_of, opened
    from gradprobe.store.run_labels import read_labels

    found = opened(runs)
    named = None if labels is None else read_labels(labels)
    ds = concat(found, dimension_of(found), named, other_batches=other_batches)
    return ds.isel(batch=0) if "batch" in ds.dims else ds


def compare(
    runs: Sequence[Path],
    out: Path,
    copies: Range,
    reference: str,
    labels: str | None = None,
    other_batches: bool = False,
) -> xr.Dataset:
    """Print the table of several runs; write it and the figures of quality along them.

    Args:
        runs: Run directories or exported files.
        out: Folder for the files.
        copies: Range for Acc.
        reference: What estimates are held against.
        labels: What they are called, comma-separated.
        other_batches: Allow different batches.

    Returns:
        The runs side by side.

    Raises:
        UsageError: They cannot be compared; nothing was written then.
    """
    from rich.console import Console

    from gradprobe.plots import PLOTS
    from gradprobe.report.comparison import compare_runs, show_comparison, write_comparison
    from gradprobe.store.along import apart
    from gradprobe.store.files import check_writable

    check_writable(out)
    ds = side_by_side(runs, labels, other_batches)
    found = compare_runs(ds, copies, reference)
    console = Console(width=None if sys.stdout.isatty() else 150)
    show_comparison(found, console)
    has_law = all(run.sizes["copies"] > 1 for _, run in apart(ds))
    files = write_comparison(found, out)
    for stem, quantity in FIGURES.items():
        if quantity == "cosine" or has_law:
            PLOTS.get("training")(ds, quantity, copies=found.copies, reference=reference, save=out / stem)
            files += [out / f"{stem}.{end}" for end in ("png", "pdf", "json")]
    for file in files:
        console.print(f"wrote {file}", highlight=False, markup=False, soft_wrap=True)
    return ds
