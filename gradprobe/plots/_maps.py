"""Figures of several maps side by side, with their legend."""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from gradprobe.plots._draw import place_legend
from gradprobe.plots._layout import columns
from gradprobe.plots._style import PaperFigure
from gradprobe.plots._surface import axis_names, ratio


def across(count: int, size: float) -> int:
    """Columns of ``count`` maps in a figure of ``size`` inches."""
    return min(columns(count, size), 3 if size >= 5 else 2)


def make_maps(ds: xr.Dataset, count: int, size: float) -> tuple[PaperFigure, list[Axes]]:
    """A figure with that many empty maps, row by row; one alone is not as wide as the figure."""
    wide = across(count, size)
    down = -(-count // wide)
    side = (size - 0.4) / max(wide, 1.6) - 0.1
    figure = PaperFigure(figsize=(size, down * (side * ratio(ds) + 0.2) + 0.3), layout="constrained")
    axes = list(figure.subplots(down, wide, squeeze=False, sharex=True, sharey=True).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def name_maps(axes: list[Axes], titles: list[str], ds: xr.Dataset, size: float) -> None:
    """Titles, and names and numbers of the axes at the outer maps only."""
    wide = across(len(axes), size)
    x, y = axis_names(ds)
    bottom = (len(axes) - 1) // wide
    for index, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        below = index + wide < len(axes)
        axis.set(title=title, xlabel=x if index // wide == bottom else "", ylabel="" if index % wide else y)
        axis.tick_params(labelbottom=not below, labelleft=index % wide == 0)


def add_legend(figure: PaperFigure, handles: list[Any], place: str = "upper") -> None:
    """A legend, for which the figure becomes higher."""
    legend = place_legend(figure, handles, place)
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # not public
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent(renderer).height / figure.dpi)
    for _ in range(3):  # titles find their height when drawn, and the layout only then
        figure.draw_without_rendering()
