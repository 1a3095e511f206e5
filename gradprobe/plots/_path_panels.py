"""Panels of a path: walkers on the map, and loss against what it cost."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, SymmetricalLogLocator

from gradprobe.plots._draw import BAND_ALPHA
from gradprobe.plots._surface import frame, value
from gradprobe.plots._walkers import Method, last, methods, within_reach

X_LABELS = {"forwards": "forward evaluations", "steps": "steps"}
START: dict[str, Any] = {
    "ls": "none",
    "marker": "o",
    "markersize": 4.5,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}


def draw_others(axes: Axes, path: xr.Dataset, chosen: int) -> None:
    """Paths of all seeds but one: thin, as one picture however many there are, seed by seed, methods in turn."""
    noisy = [m for m in methods(path) if m.stochastic]
    rows = [i for i in range(path.sizes["seed"]) if i != chosen]
    if not noisy or not rows:
        return
    positions = within_reach(path["position"].values, frame(path))
    lines = LineCollection(
        [positions[m.rank, i] for i in rows for m in noisy],
        colors=[m.color for _ in rows for m in noisy],
        linewidths=0.35,
        alpha=max(0.15, min(0.5, 4.0 / len(rows))),
        zorder=1.5,
        rasterized=True,
        gid="others",
    )
    axes.add_collection(lines, autolim=False)


def draw_chosen(axes: Axes, path: xr.Dataset, chosen: int) -> None:
    """One path of each method: its line, open circle at the start, the method's marker at the end."""
    positions = within_reach(path["position"].values[:, chosen], frame(path))
    size = matplotlib.rcParams["lines.markersize"]
    room = np.ptp(np.array(frame(path)), axis=1)
    ends: list[np.ndarray] = []
    for method in methods(path):
        line, order = positions[method.rank], 3.0 + 0.01 * method.rank
        # a white rim keeps crossing paths apart, also in grey
        axes.plot(line[:, 0], line[:, 1], color="white", linewidth=1.9, alpha=0.7, zorder=order, gid="rim")
        axes.plot(
            line[:, 0],
            line[:, 1],
            color=method.color,
            linestyle=method.dashes,
            linewidth=1.0,
            zorder=order + 0.005,
            label=method.label,
            gid="path",
        )
        end = last(path["position"].values[method.rank, chosen])
        twins = sum(
            bool((np.abs(end - e) < 0.025 * room).all()) for e in ends
        )  # nested, so that all are seen
        ends.append(end)
        look: dict[str, Any] = {"ls": "none", "ms": 1.45 * 0.75**twins * size, **method.marker}
        axes.plot(
            end[:1], end[1:], zorder=7.0 + 0.01 * twins, label=f"_end of {method.label}", gid="end", **look
        )
    start = path["start_position"].values
    axes.plot(start[:1], start[1:], gid="start", zorder=7.5, **START)


def abscissa(progress: xr.Dataset, method: Method, x: str) -> np.ndarray:
    """Forward evaluations, or steps, of a method at the recorded steps; NaN after its end."""
    if x == "forwards":
        return np.asarray(progress["forwards"].values[method.rank], dtype=float)
    return np.asarray(progress["step"].values, dtype=float)


def from_zero(axes: Axes, values: np.ndarray) -> None:
    """A log axis that has room for 0, the start: linear up to the first cost of any method."""
    costs = values[np.isfinite(values) & (values > 0)]
    if not costs.size:
        return
    first, end = float(costs.min()), float(costs.max())
    axes.set_xscale("symlog", linthresh=first, linscale=0.35)
    axes.set_xlim(0, end * 1.35)
    decades = math.log10(end / first)
    axes.xaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=first, subs=list(range(2, 10))))
    axes.xaxis.set_major_locator(FixedLocator([0, *_powers(first, end, 2 if decades > 6 else 1)]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _powers(first: float, end: float, every: int) -> list[float]:
    """Powers of ten from ``first`` to ``end``."""
    low, high = math.ceil(math.log10(first) - 1e-9), math.floor(math.log10(end) + 1e-9)
    return [10.0**k for k in range(low, high + 1, every)]


def draw_progress(axes: Axes, path: xr.Dataset, progress: xr.Dataset, x: str, log: bool) -> None:
    """Loss above the known minimum (else loss) of each method: median and quantiles over seeds.

    Args:
        axes: The panel.
        path: A path from one start.
        progress: ``gradprobe.stats.progress`` of it.
        x: ``forwards`` or ``steps``.
        log: Draw losses on a log axis, where that is possible.
    """
    base = value(path)
    median, low, high = (progress[f"loss{k}"].values - (base or 0.0) for k in ("", "_low", "_high"))
    axes.set(xlabel=X_LABELS[x], ylabel="loss" if base is None else "loss − minimum")
    shown = np.concatenate([median.ravel(), low.ravel()])
    if log and (base is not None or (np.isfinite(shown).any() and np.nanmin(shown) > 0)):
        _log_axis(axes, median, low, high)
    else:
        _finite_axis(axes, median, low, high)
    # where walkers diverged a loss is infinite: curve and band go on to the upper edge and beyond
    beyond = (
        axes.get_ylim()[1] * 10
        if axes.get_yscale() == "log"
        else axes.get_ylim()[1] + np.ptp(axes.get_ylim())
    )
    median, low, high = (np.where(np.isposinf(v), beyond, v) for v in (median, low, high))
    ends = []
    for method in methods(path):
        at, i = abscissa(progress, method, x), method.rank
        there = np.isfinite(at) & ~np.isnan(median[i])
        ends.append(at[there].max(initial=1.0))
        _draw_median(axes, method, at[there], median[i][there])
        if method.stochastic and path.sizes["seed"] > 1:
            look: dict[str, Any] = {"color": method.color, "alpha": BAND_ALPHA, "linewidth": 0, "gid": "band"}
            # steps: until its evaluations are in, a walker is where it was
            axes.fill_between(
                at[there], low[i][there], high[i][there], step="post", zorder=1.0 + 0.01 * i, **look
            )
    if x == "forwards":
        from_zero(axes, progress["forwards"].values)
    else:
        axes.set_xlim(0, max(ends) * 1.04)


def _draw_median(axes: Axes, method: Method, at: np.ndarray, values: np.ndarray) -> None:
    axes.plot(
        at,
        values,
        drawstyle="steps-post",
        color=method.color,
        linestyle=method.dashes,
        markevery=[at.size - 1] if at.size else None,
        zorder=2.0 + 0.01 * method.rank,
        label=method.label,
        gid="median",
        **method.marker,
    )


def _log_axis(axes: Axes, median: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """A log axis from the lowest median or band that float64 resolves; zeros go to its lower edge."""
    values = np.concatenate([median.ravel(), low.ravel(), high.ravel()])
    values = values[np.isfinite(values) & (values > 0)]
    top = float(values.max(initial=1.0)) if values.size else 1.0
    start = float(np.nanmax(median[:, 0])) if np.isfinite(median[:, 0]).any() else top
    bottom = max(float(values.min()) if values.size else 0.1, 1e-16 * max(start, 1e-300))
    axes.set_yscale("log", nonpositive="clip")
    # divergence would squeeze everything else: six decades above the start are enough to see it
    axes.set_ylim(bottom / 1.6, min(top, 1e6 * start if start > 0 else top) * 1.6)
    decades = math.log10(top / bottom) if top > bottom else 1.0
    axes.yaxis.set_major_locator(LogLocator(numticks=7 if decades > 6 else 9))
    if decades > 2:
        axes.yaxis.set_minor_formatter(NullFormatter())


def _finite_axis(axes: Axes, median: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    values = np.concatenate([median.ravel(), low.ravel(), high.ravel()])
    values = values[np.isfinite(values)]
    if values.size:
        middle = float(np.nanmax(np.where(np.isfinite(median), median, np.nan)))
        room = 0.05 * (middle - float(values.min()) or 1.0)
        axes.set_ylim(float(values.min()) - room, min(float(values.max()), middle + 8 * room) + room)


def handles(path: xr.Dataset, one: bool, mapped: bool) -> list[Any]:
    """Entries of the legend: methods, then what the other marks mean.

    Args:
        path: The path.
        one: There is one seed.
        mapped: There is a map.
    """
    found: list[Any] = [
        Line2D(
            [],
            [],
            color=m.color,
            linestyle=m.dashes,
            linewidth=1.1,
            markersize=4.5,
            label=m.label,
            **m.marker,
        )
        for m in methods(path)
    ]
    if mapped:
        found.append(Line2D([], [], label="start", **START))
    if not one and any(m.stochastic for m in methods(path)):
        if mapped:
            found.append(Line2D([], [], color="0.35", linewidth=0.6, label="other seeds"))
        found.append(
            Patch(facecolor="0.35", alpha=2 * BAND_ALPHA, linewidth=0, label="median, 10–90 % of seeds")
        )
    return found
