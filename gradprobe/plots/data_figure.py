"""Is the estimator's noise already below the minibatch's? Variance of copies and of data against copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

from gradprobe.core.errors import UsageError, one_of
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import choose_estimators, choose_layers
from gradprobe.plots._crossings import Crossings, Line, crossings
from gradprobe.plots._panels import Panel
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import MARKERS, PaperFigure, inches, paper

ROW = 0.055
"""Share of a panel's height for the interval of one method's crossing."""
GREY = "0.35"

Span = tuple[float, float, float, float]
"""Fewest and most copies, least and greatest variance."""


@register("data_or_copies", summary="variance of data and of copies against copies, and where they are equal")
def data_or_copies(
    ds: xr.Dataset,
    *,
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    scale: str = "raw",
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw the variance that the copies leave, which falls as 1/n, and that of the data, which stays.

    One panel per layer in execution order, then the whole model; both variances relative to the squared length of a
    batch's gradient, at unit gain. Line: the copies' variance of a method, dashed beyond the run. Grey: the data's,
    with its interval. Below the panel's line, one row for each method: n*, where the two are equal, with its
    interval; a row without a mark has only a lower end. What is missing is named in the panel. All numbers come from
    :func:`gradprobe.stats.data_or_copies`.

    Args:
        ds: Results of ``gp.probe(..., batches=...)``, or of one batch with the reference "dataset".
        estimators: Labels, in the order of the legend; all by default. Those without noise have no line.
        layers: Names or globs; all by default.
        scale: ``raw``, or ``unit-gain``: in the model's panel every layer is rescaled to unit gain.
        model: Draw the model's panel.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A name or option is unknown, nothing is known of the data's noise, or there is nothing to draw.
    """
    one_of("scale", scale, ("raw", "unit-gain"))
    size = inches(width)
    one = ds.isel(batch=0) if "batch" in ds.dims else ds
    labels, names = choose_estimators(one, estimators), choose_layers(one, layers)
    found = crossings(ds, labels, names, scale, model)
    if not found or not found[0].lines:
        raise UsageError(
            "there is nothing to draw; choose an estimator with noise, and a layer or the model."
        )
    figure = _draw_all(found, int(ds["copies"].values[-1]), size)
    figure.gradprobe_caption = caption(ds, found, scale)
    given: dict[str, Any] = {
        "estimators": labels,
        "layers": names,
        "scale": scale,
        "model": model,
        "width": width,
    }
    record = {"figure": "data_or_copies", "caption": figure.gradprobe_caption, "arguments": given}
    return finish(figure, record | {"panels": [p.to_dict() for p in found]} | made_from(ds), save)


def _draw_all(found: list[Crossings], last: int, size: float) -> PaperFigure:
    room = _layout.room(len(found), size)
    with paper(marks=min(1.0, 0.5 + 0.4 * room)):
        figure, axes = _layout.make_grid(len(found), size)
        titles = _layout.titles([Panel(p.name, p.over, p.numel, []) for p in found], room)
        span = _span(found, last)
        heads = []
        for index, (axis, panel) in enumerate(zip(axes, found, strict=True)):
            _set_scales(axis, span, len(panel.lines), room)
            _draw_panel(axis, panel, last, span)
            notes = [(line.note, line.estimator) for line in panel.lines if line.note]
            heads.append(_draw.put_title(axis, titles[index], notes, room))
        legend = _draw.place_legend(figure, _key(found))
        _layout.set_height(figure, [h + 0.2 for h in heads], legend, size)
        figure.supxlabel("Monte-Carlo copies $n$")
        label = "Error variance with squared gradient of a batch = 1"
        figure.supylabel(_layout.axis_label(label, 0.75 * figure.get_figheight()))
    return figure


def _span(found: list[Crossings], last: int) -> Span:
    """Range of copies and of variances: all crossings, all shares, and one copy of each method."""
    stars = [line.crossover[0] for p in found for line in p.lines if np.isfinite(line.crossover[0])]
    most = max([float(last), *(2 * n for n in stars)])
    ones = [line.variance[0] for p in found for line in p.lines if np.isfinite(line.variance[0])]
    shares = [v for p in found for v in p.share[:2] if np.isfinite(v) and v > 0]
    top = max([1.0, *ones, *(min(p.share[2], 2.0) for p in found if np.isfinite(p.share[2]))])
    low = min([*(v / most for v in ones), *shares, 1.0])
    low = max(low, min([s for p in found if (s := p.share[0]) > 0], default=low) / 20)
    return 1.0, 1.15 * most, 0.7 * low, 1.4 * top


def _set_scales(axis: Axes, span: Span, rows: int, space: float) -> None:
    first, last, low, high = span
    strip = _strip(rows)
    bottom = low * (low / high) ** (strip / (1 - strip))
    axis.set(xscale="log", yscale="log", xlim=(first, last), ylim=(bottom, high))
    decades = np.arange(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    step = max(1, math.ceil(len(decades) / 5))
    axis.yaxis.set_major_locator(FixedLocator([10.0**d for d in decades if d % step == 0]))
    axis.yaxis.set_minor_locator(NullLocator())
    many = math.log10(last / first) > 2.2 * space
    axis.xaxis.set_major_locator(FixedLocator([10.0**d for d in range(0, 13, 2 if many else 1)]))
    axis.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)) if not many else NullLocator())
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _strip(rows: int) -> float:
    """Share of a panel's height for the intervals of the crossings."""
    return min(ROW * rows + 0.03, 0.5)


def _draw_panel(axis: Axes, panel: Crossings, last: int, span: Span) -> None:
    share, low, high = panel.share
    if np.isfinite(low):
        axis.axhspan(max(low, span[2]), high, color="0.85", linewidth=0, zorder=0.5, gid="data")
    if np.isfinite(share):
        axis.axhline(share, color=GREY, linewidth=0.9, zorder=1, gid="share")
    axis.axhline(span[2], color="0.8", linewidth=0.5, zorder=0.4)
    rows = len(panel.lines)
    for row, line in enumerate(panel.lines):
        if np.isfinite(line.variance[0]):
            _draw_line(axis, line, last, span, row / rows)
        y = _strip(rows) - 0.015 - (_strip(rows) - 0.03) * (row + 0.5) / rows
        _draw_crossing(axis, line, row, y, share, span)


def _draw_line(axis: Axes, line: Line, last: int, span: Span, phase: float) -> None:
    """tau/n as far as the run goes, and dashed beyond; nothing below the panel's line."""
    value = line.variance[0]
    end = min(span[1], value / span[2])
    inside = min(float(last), end)
    common: dict[str, Any] = {"color": line.color, "linewidth": 1.1, "zorder": 2 + phase}
    axis.plot([1, inside], [value, value / inside], gid="copies", label=line.estimator, **common)
    if end > inside:
        axis.plot([inside, end], [value / inside, value / end], ls=(0, (2.6, 1.4)), gid="beyond", **common)
    low, high = line.variance[1:]
    if np.isfinite(low) and np.isfinite(high):
        grid = np.array([1.0, end])
        axis.fill_between(
            grid, np.maximum(low / grid, span[2]), high / grid, color=line.color, alpha=0.14, linewidth=0,
            zorder=1.2, gid="band",
        )  # fmt: skip


def _draw_crossing(axis: Axes, line: Line, row: int, y: float, share: float, span: Span) -> None:
    """n* where the lines meet, and again with its interval in the method's row."""
    value, low, high = line.crossover
    where: Any = axis.get_xaxis_transform()
    look = _look(line, row)
    if np.isfinite(low) and low < span[1]:
        ends = [max(low, span[0]), min(high, span[1])]
        axis.plot(
            ends,
            [y, y],
            color=line.color,
            linewidth=1.0,
            solid_capstyle="butt",
            transform=where,
            gid="interval",
        )
    if np.isfinite(value) and value >= span[0]:
        axis.plot([value], [y], ls="none", transform=where, zorder=4, gid="crossover", **look)
        if np.isfinite(line.variance[0]):
            axis.plot([value], [share], ls="none", zorder=4, gid="meeting", **look)


def _look(line: Line, row: int) -> dict[str, Any]:
    face = "white" if line.open else line.color
    shape = {"marker": MARKERS[row % len(MARKERS)], "markersize": 2.9, "markeredgewidth": 0.7}
    return shape | {"markerfacecolor": face, "markeredgecolor": line.color}


def _key(found: list[Crossings]) -> list[Any]:
    handles: list[Any] = [
        Line2D([], [], color=line.color, linewidth=1.1, label=line.estimator, **_look(line, row))
        for row, line in enumerate(found[0].lines)
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, label="data"))
    if any(np.isfinite(p.share[1]) for p in found):
        handles.append(Patch(facecolor="0.85", linewidth=0, label="95 % interval"))
    return handles


def caption(ds: xr.Dataset, found: list[Crossings], scale: str) -> str:
    """What the figure shows, for which data, and what must not be read into it.

    Args:
        ds: Results.
        found: What is shown.
        scale: Scale of the model's panel.
    """
    about, many = ds.attrs.get("problem", ""), ds.sizes.get("batch", 1)
    said = [
        f"Variance of a direction around the gradient of unlimited data{f' ({about})' if about else ''}, relative "
        f"to the squared length of the gradient of a batch of {ds.attrs.get('batch_size', '?')} samples and at unit "
        "gain: what n copies leave (falling lines; dashed beyond the run) and what the batch leaves (grey).",
        "Marks: where both are equal; with more copies than that, more data would help more than more copies.",
    ]
    if many >= 3:
        said.append(f"Intervals: 95 %, pointwise, from {many} batches (jackknife).")
    else:
        said.append(f"{many} batch{'es' * (many > 1)}: no interval for the data.")
    if any(p.over == "model" for p in found):
        how = "each layer rescaled to unit gain" if scale == "unit-gain" else "layers with their own gains"
        said.append(f"Whole model: sum over the probed layers, {how}.")
    return " ".join(said)
