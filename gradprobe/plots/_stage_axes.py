"""Axes of the figure of training: ranges, scales and ticks, and how far methods stand apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from gradprobe.plots._stages import StagePanel, Stages
from gradprobe.plots._style import LETTER

TICK_SIZE = 6.5
EDGE = 3.0
"""Points between the outermost marks and the ends of the axis."""


def step_of(stages: list[Stages], along: str, room: float) -> float:
    """How far methods stand apart, in points: not so far that one checkpoint's reach another's."""
    at = np.unique(np.log(stages[0].copies) if along == "log" else stages[0].copies)
    if at.size < 2:
        return 2.2
    return float(
        np.clip(0.5 * 72 * 0.8 * room * np.diff(at).min() / (at[-1] - at[0]) / len(stages), 1.3, 2.2)
    )


def value_range(panels: list[StagePanel]) -> tuple[float, float]:
    """All values; intervals up to 1, and below 0 up to a tenth of the height."""
    values, edges = _shown(panels)
    top = max(0.05, values.max(initial=0.05), min(1.0, edges.max(initial=0.0)))
    top = 1.04 * max(top, 1.0 if top > 0.5 else 0.0)
    return float(min(values.min(initial=0.0), max(edges.min(initial=0.0), -0.1 * top)) - 0.03 * top), float(
        top
    )


def log_range(panels: list[StagePanel]) -> tuple[float, float]:
    """All values, and intervals and bounds up to ten times beyond."""
    values, edges = _shown(panels)
    values, edges = values[values > 0], edges[edges > 0]
    if not values.size:
        values = edges if edges.size else np.array([1.0, 10.0])
    low = max(edges.min(initial=values.min()), values.min() / 10)
    return float(low / 1.3), float(1.3 * min(edges.max(initial=values.max()), 10 * values.max()))


def _shown(panels: list[StagePanel]) -> tuple[Any, Any]:
    stages = [s for p in panels for s in p.stages]
    values = np.concatenate([s.mean for s in stages])
    edges = np.concatenate([x for s in stages for x in (s.low, s.high)])
    return values[np.isfinite(values)], edges[np.isfinite(edges)]


def set_x_axis(axis: Axes, stages: Stages, along: str, room: float, edge: float) -> float:
    """Scale and ticks, with ``edge`` points beside the outermost places; inches that long names need below."""
    places = stages.copies.astype(float)
    first, last = float(places.min()), float(places.max())
    share = max(0.06, edge / (0.8 * 72 * room - 2 * edge))
    if along == "log":
        margin = (last / first) ** share if last > first else 2.0
        axis.set(xscale="log", xlim=(first / margin, last * margin))
        axis.xaxis.set_major_locator(LogLocator(numticks=max(3, int(room / 0.3))))
        axis.xaxis.set_minor_locator(FixedLocator(places.tolist()))
        axis.xaxis.set_minor_formatter(NullFormatter())
        return 0.0
    margin = share * (last - first) or 0.5
    axis.set_xlim(first - margin, last + margin)
    if along == "linear":
        whole_numbers = all(isinstance(x, int) for x in stages.labels)
        axis.xaxis.set_major_locator(
            MaxNLocator(max(2, int(room / 0.4)), steps=[1, 2, 2.5, 5, 10], integer=whole_numbers)
        )
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(FixedLocator(places.tolist()))
        return 0.0
    return _named_ticks(axis, stages, room)


def _named_ticks(axis: Axes, stages: Stages, room: float) -> float:
    """Names of checkpoints, upright where they do not fit side by side; of very many, some."""
    letter = LETTER * TICK_SIZE / 72
    names = [str(x) for x in stages.labels]
    names = [x if len(x) <= 18 else f"{x[:8]}…{x[-9:]}" for x in names]
    step = max(1, int(np.ceil(len(names) * 1.4 * TICK_SIZE / 72 / (0.85 * room))))
    axis.xaxis.set_major_locator(FixedLocator(stages.copies[::step].tolist()))
    axis.xaxis.set_major_formatter(FixedFormatter([x.replace("$", r"\$") for x in names[::step]]))
    axis.xaxis.set_minor_locator(NullLocator())
    widest = max(map(len, names)) * letter
    if widest + letter < 0.85 * room / len(names):
        return 0.0
    axis.tick_params(axis="x", labelrotation=90)
    return widest
