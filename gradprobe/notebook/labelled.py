"""What is gradprobe's own among labelled data, and the HTML of it; None for everything else."""

from __future__ import annotations

import xarray as xr

from gradprobe.core.markup import details, view
from gradprobe.notebook.result import is_result, result_parts
from gradprobe.notebook.run import is_run, run_parts

BELOW = "all of it, as xarray shows it"


def dataset_view(ds: xr.Dataset) -> str | None:
    """HTML of a run or of a result of statistics."""
    if is_run(ds):
        parts = run_parts(ds)
    elif is_result(ds):
        parts = result_parts(ds)
    else:
        return None
    return view(*parts, details(BELOW, ds._repr_html_()))


def array_view(da: xr.DataArray) -> str | None:
    """HTML of a result of statistics."""
    if not is_result(da):
        return None
    return view(*result_parts(da), details(BELOW, da._repr_html_()))
