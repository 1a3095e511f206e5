"""The landscape behind paths and fields: frame, quiet contours of f, and its known minima."""

from __future__ import annotations

import json
import math
from typing import Any

import matplotlib.colors
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradprobe.core.errors import UsageError

LEVELS = 13
GREYS = matplotlib.colors.LinearSegmentedColormap.from_list("quiet", ["0.995", "0.80"])
LINES = "0.72"
_NARROW = 10.0
"""Ratio of highest to lowest level below which a log scale shows nothing that a linear one does not."""
_SKEWED = 30.0
"""Ratio of highest to median height from which evenly spaced levels leave most of the map empty."""
_MINIMA: dict[str, dict[str, Any]] = {
    "global": {"marker": "*", "markersize": 10, "markerfacecolor": "black", "markeredgecolor": "white"},
    "local": {"marker": "x", "markersize": 4.0, "markeredgecolor": "0.15"},
}
Frame = tuple[tuple[float, float], tuple[float, float]]


def two_variables(ds: xr.Dataset, what: str) -> None:
    """Refuse functions that have no map.

    Raises:
        UsageError: The function has more or less than two variables.
    """
    if "surface" not in ds:
        raise UsageError(
            f"{what} needs a function of two variables, and {ds.attrs.get('function')} has {ds.sizes['coordinate']}."
        )


def frame(ds: xr.Dataset) -> Frame:
    """What the map shows: the domain, or the surface's extent if there is none or a descent starts outside it.

    Args:
        ds: A path or field with a surface.
    """
    extent = tuple((float(ds[k].min()), float(ds[k].max())) for k in reversed(ds["surface"].dims))
    domain = json.loads(ds.attrs.get("domain") or "null")
    if domain is None:
        return extent[0], extent[1]
    sides = tuple((float(low), float(high)) for low, high in domain)
    if "start_position" in ds and not inside(ds["start_position"].values, (sides[0], sides[1])).all():
        return extent[0], extent[1]
    return sides[0], sides[1]


def inside(points: np.ndarray, sides: Frame) -> np.ndarray:
    """Whether points ``[..., 2]`` lie in the frame; False where they are NaN."""
    low, high = np.array(sides).T
    return np.asarray(((points >= low) & (points <= high)).all(axis=-1))


def levels(surface: np.ndarray, lowest: float | None, log: bool = True) -> tuple[np.ndarray, float | None]:
    """Levels of contours, and the value above which they are evenly spaced on a log scale (None: evenly in f).

    Args:
        surface: f on the grid.
        lowest: Its known minimum. If there is none, the grid's lowest value serves where f is so skewed that
            evenly spaced levels would show nothing.
        log: Whether a log scale is wanted.
    """
    values = surface[np.isfinite(surface)]
    if not values.size:
        return np.linspace(0.0, 1.0, LEVELS), None
    base = float(values.min()) if lowest is None else lowest
    gap = values[values > base] - base
    if gap.size and log:
        low, middle, high = np.quantile(gap, [0.002, 0.5, 1.0])
        if high > _NARROW * low and (lowest is not None or high > _SKEWED * middle):
            return base + np.geomspace(low, high, LEVELS), base
    low, high = values.min(), values.max()
    return np.linspace(low, high if high > low else low + 1.0, LEVELS), None


def draw_surface(
    axes: Axes, ds: xr.Dataset, filled: bool = True, log: bool = True, color: str = LINES
) -> str:
    """Contours of f in greys that let paths stand out, low ground light, with frame and names of the axes.

    Args:
        axes: The panel.
        ds: A path or field with a surface.
        filled: Shade between the lines too.
        log: Levels evenly spaced on a log scale, where that is possible.
        color: Of the lines.

    Returns:
        A sentence about the levels.
    """
    at, base = levels(ds["surface"].values, value(ds), log)
    y, x = (ds[k].values for k in ds["surface"].dims)
    surface = ds["surface"].values
    if filled:
        shades = [GREYS(t) for t in np.linspace(0, 1, at.size + 1)]
        area = axes.contourf(x, y, surface, levels=at, colors=shades, extend="both", zorder=0)
        area.set(gid="surface", rasterized=True)
    lines = axes.contour(x, y, surface, levels=at, colors=color, linewidths=0.35, linestyles="-", zorder=0.5)
    lines.set_gid("contours")
    sides = frame(ds)
    names = axis_names(ds)
    axes.set(xlim=sides[0], ylim=sides[1], xlabel=names[0], ylabel=names[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if 0.45 < ratio(ds) < 2.2:
        axes.set_aspect("equal")
    if base is None:
        return f"Contours: {at.size} values of f, evenly spaced from {at[0]:.3g} to {at[-1]:.3g}."
    above = "its minimum" if value(ds) is not None else "its lowest value on the grid"
    return (
        f"Contours: {at.size} values of f minus {above}, evenly spaced on a log scale from {at[0] - base:.2g} to "
        f"{at[-1] - base:.2g}."
    )


def axis_names(ds: xr.Dataset) -> list[str]:
    """Names of the coordinates; those that are numbers become x_1, x_2."""
    names = [str(c) for c in ds["coordinate"].values]
    return [rf"$x_{{{i + 1}}}$" if name.isdigit() else name for i, name in enumerate(names)]


def ratio(ds: xr.Dataset) -> float:
    """Height of the frame over its width."""
    (left, right), (bottom, top) = frame(ds)
    return (top - bottom) / (right - left)


def value(ds: xr.Dataset) -> float | None:
    """The known value at the global minima."""
    given = ds.attrs.get("minimum_value")
    if given is None or given == "null" or not math.isfinite(float(given)):
        return None
    return float(given)


def kinds(ds: xr.Dataset) -> list[str]:
    """Kind of each known minimum."""
    return [str(k) for k in ds["minimum_kind"].values] if ds.sizes.get("minimum") else []


def draw_minima(axes: Axes, ds: xr.Dataset, order: float = 6.0) -> None:
    """Known minima: stars where global, small crosses where local."""
    points = ds["minimum_position"].values if ds.sizes.get("minimum") else np.empty((0, 2))
    for kind, look in _MINIMA.items():
        mine = points[[k == kind for k in kinds(ds)]] if len(points) else points
        if len(mine):
            axes.plot(
                mine[:, 0],
                mine[:, 1],
                ls="none",
                markeredgewidth=0.6,
                zorder=order,
                gid=f"{kind} minima",
                **look,
            )


def minima_handles(ds: xr.Dataset) -> list[Line2D]:
    """Entries of a legend for the kinds of minima that there are."""
    there = set(kinds(ds))
    return [
        Line2D([], [], ls="none", markeredgewidth=0.6, label=f"{kind} minimum", **look)
        for kind, look in _MINIMA.items()
        if kind in there
    ]
