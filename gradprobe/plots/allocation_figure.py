"""What it gains to share copies out over the samples of a batch, and who gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gradprobe.core.errors import UsageError
from gradprobe.plots import register
from gradprobe.plots._save import finish
from gradprobe.plots._style import MARKERS, NOTE_SIZE, PaperFigure, despine, inches, paper

FLOPS = {"flops-gaussian": "_", "flops-bernoulli-0.3": "|"}
NAMES = {"flops-gaussian": "FLOPS, Gaussian", "flops-bernoulli-0.3": "FLOPS, Bernoulli 0.3"}
NEEDED = ("allocated", "gain", "gain_low", "gain_high", "sample_loss", "state")
MANY = 12
"""Layers from which on their names stand upright."""
MUCH = 4
"""Largest over smallest value from which on a scale is logarithmic."""


@register(
    "allocation", summary="gain of shared-out copies by layer, and the shares against the samples' losses"
)
def allocation(
    allocated: xr.Dataset, *, width: str | float = "double", save: str | Path | None = None
) -> PaperFigure:
    """Draw gains over equal shares by layer (left), and Neyman's copies of each sample against its loss (right).

    Left: filled markers are Neyman's shares, cross-fitted, with 95 % intervals; grey ones FLOPS's allocators. Right:
    copies over the average number, the geometric mean over layers.

    Args:
        allocated: Result of ``gp.stats.allocate(ds)`` over layers.
        width: ``single``, ``double``, or inches.
        save: Stem of the files (png, pdf, json); not saved by default.

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: It is not such a result, or has nothing to show.
    """
    _check(allocated)
    shown = allocated.isel(estimator=np.flatnonzero((allocated["state"] == "ok").any("layer")))
    if not shown.sizes["estimator"]:
        raise UsageError("no estimator has shares to draw: they need samples' moments of at least two seeds.")
    with paper():
        many = shown.sizes["layer"] > MANY
        figure = PaperFigure(figsize=(inches(width), 2.5 if many else 2.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        _gains(left, shown, many)
        _shares(right, shown)
        _legend(figure, shown)
    figure.gradprobe_caption = _caption(shown)
    record = {name: shown[name].values for name in NEEDED} | {"allocator": shown["allocator"].values}
    record |= {"estimator": shown["estimator"].values, "layer": shown["layer"].values}
    return finish(
        figure,
        {"figure": "allocation", "caption": figure.gradprobe_caption, "attrs": dict(shown.attrs), **record},
        save,
    )


def _check(ds: xr.Dataset) -> None:
    missing = [name for name in NEEDED if name not in ds]
    if missing or "layer" not in ds["gain"].dims:
        raise UsageError("this needs the result of gp.stats.allocate(ds), over='layer'.")


def _look(ds: xr.Dataset, number: int) -> dict[str, Any]:
    color = str(ds["color"].values[number]) if "color" in ds.coords else f"C{number}"
    return {"color": color, "marker": MARKERS[number % len(MARKERS)]}


def _gains(axis: Axes, ds: xr.Dataset, many: bool) -> None:
    count, layers = ds.sizes["estimator"], ds.sizes["layer"]
    x = np.arange(layers)
    for e in range(count):
        at = x + 0.7 * ((e + 0.5) / count - 0.5)
        mine, look = ds.isel(estimator=e), _look(ds, e)
        for name, marker in FLOPS.items():
            other = mine["gain"].sel(allocator=name)
            axis.plot(at, other, ls="none", marker=marker, color="0.55", markersize=2.6, zorder=1)
        own = mine.sel(allocator="neyman")
        low, high = (own[name].values for name in ("gain_low", "gain_high"))
        axis.vlines(at, np.maximum(low, 1e-3), high, color=look["color"], linewidth=0.8, zorder=2)
        axis.plot(at, own["gain"], ls="none", markersize=2.6, zorder=3, **look)
    axis.axhline(1, color="0.8", linewidth=0.6, zorder=0)
    axis.set(ylabel="gain over equal shares", xlim=(-0.6, layers - 0.4))
    axis.set_xticks(x, [str(name) for name in ds["layer"].values], rotation=90 if many else 0)
    axis.tick_params(axis="x", length=0)
    _scale(axis, "y", ds["gain"].sel(allocator=["neyman", *FLOPS]).values)
    despine(axis)


def _shares(axis: Axes, ds: xr.Dataset) -> None:
    share = ds["allocated"].sel(allocator="neyman") / ds.attrs["copies"]
    mean = np.exp(np.log(share).mean("layer", skipna=True))
    losses = np.maximum(ds["sample_loss"].values, 1e-8)
    for e in range(ds.sizes["estimator"]):
        look = _look(ds, e)
        axis.plot(losses, mean.isel(estimator=e), ls="none", markersize=2.2, alpha=0.7, **look)
    axis.axhline(1, color="0.8", linewidth=0.6, zorder=0)
    axis.set(xlabel="loss of the sample", ylabel="its copies / average")
    _scale(axis, "x", losses)
    _scale(axis, "y", mean.values)
    despine(axis)


def _scale(axis: Axes, which: str, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic scale with plain numbers where values differ by much; else a linear one."""
    ends = np.nanmin(values), np.nanmax(values)
    if ends[1] < MUCH * ends[0]:
        return
    axis.set(**{f"{which}scale": "log"})
    if ends[1] < 1e3 * ends[0]:
        target = axis.yaxis if which == "y" else axis.xaxis
        target.set_major_locator(LogLocator(subs=(1, 2, 5)))
        target.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        target.set_minor_locator(NullLocator())


def _legend(figure: PaperFigure, ds: xr.Dataset) -> None:
    handles = [
        Line2D([], [], ls="none", markersize=2.8, label=str(name), **_look(ds, e))
        for e, name in enumerate(ds["estimator"].values)
    ]
    handles += [
        Line2D([], [], ls="none", marker=marker, color="0.55", markersize=3, label=NAMES[name])
        for name, marker in FLOPS.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles) if len(handles) <= 5 else -(-len(handles) // 2),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.0,
        labelspacing=0.25,
        fontsize=NOTE_SIZE + 0.5,
    )


def _caption(ds: xr.Dataset) -> str:
    missed = float(ds["missed"].sel(allocator="flops-gaussian")) if "missed" in ds else 0.0
    return (
        f"{ds.attrs['copies']} copies for each of {ds.sizes['sample']} samples on average. Left: variance of the "
        "direction under equal shares over that under Neyman's (copies proportional to the standard deviation of a "
        "sample's contribution; chosen from the other seeds), with 95 % intervals over seeds, pointwise, for this "
        "batch; grey: FLOPS's allocators, on average over their randomness (the Gaussian one gives a sample no copy "
        f"with probability {missed:.2g}: such contributions are missing, which the variance does not show). Right: "
        "copies of each sample over the average number, geometric mean over layers. Noise is taken to be each "
        "sample's own."
    )
