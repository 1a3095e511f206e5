"""What a copy's intermediates took between its forward and its read-out, for the terminal and the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

COLUMNS = ("method", "layer", "as kept", "as numbers", "times less")

SAID = (
    "Bytes of a copy's noise, and of the inputs that it made noisy, from its forward until they are read. Of methods "
    "with one noisy layer at a time the layer that takes most."
)


def intermediates(ds: xr.Dataset) -> pd.DataFrame:
    """Bytes of a copy's intermediates for each method; empty where nothing was kept as signs.

    Args:
        ds: Results of one run.

    Returns:
        One row for each method whose bytes were noted: ``method``, ``layer`` (the one that takes most; all where
        one noise is in all of them), ``as kept``, ``as numbers`` and ``times less``.
    """
    if "plain_bytes" not in ds or not bool((ds["kept_bytes"] < ds["plain_bytes"]).any()):
        return pd.DataFrame(columns=list(COLUMNS))
    plain, kept = (ds[name].max("seed") for name in ("plain_bytes", "kept_bytes"))
    rows = []
    for method in ds["estimator"].values:
        own = np.nan_to_num(plain.sel(estimator=method).values)
        if not own.any():
            continue
        most = int(np.argmax(own))
        served = ds["booked_on"].sel(estimator=method).values
        shared = len(set(ds["layer"].values[served == ds["parameter"].values[most]])) > 1
        name = "all layers" if shared else str(ds["layer"].values[most])
        taken = float(kept.sel(estimator=method)[most])
        rows.append((str(method), name, taken, float(own[most]), float(own[most]) / taken))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def size(count: float) -> str:
    """Bytes as they are written: 512 B, 3.4 KiB, 12 MiB."""
    power = next((k for k in range(3) if count < 1024 ** (k + 1)), 3)
    value, unit = count / 1024**power, ("B", "KiB", "MiB", "GiB")[power]
    return f"{value:.0f} {unit}" if value >= 10 or not power else f"{value:.1f} {unit}"


def times(factor: float) -> str:
    """How many times less, as it is written."""
    return f"{factor:.1f}".removesuffix(".0")
