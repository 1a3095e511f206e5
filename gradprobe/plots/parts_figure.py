"""Noise or bias: what each method lacks of a cosine of 1, split into its causes, in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradprobe.core.errors import UsageError, one_of, positive
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import choose_estimators, choose_layers
from gradprobe.plots._panels import Panel
from gradprobe.plots._parts import LOOKS, Group, groups, key
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import (
    LABEL_SIZE,
    NOTE_SIZE,
    TITLE_SIZE,
    PaperFigure,
    inches,
    literal,
    named,
    paper,
)

BAR = 0.13
"""Inches for each method."""
LETTERS = 18
"""Longest line of a method's label."""


@register("noise_or_bias", summary="1 - cosine at n copies as stacked bars: noise, encoding and smoothing")
def noise_or_bias(
    ds: xr.Dataset,
    *,
    copies: float | None = None,
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    scale: str = "raw",
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw what n copies lack of a cosine of 1 with backprop, as one stacked bar per method and layer.

    One group per layer in execution order, then the whole model. From the axis outwards: smoothing bias (goes
    with a smaller sigma), bias of the encoding (stays), noise (goes with more copies). Negative parts lie left
    of zero. Hatched: two parts that the run cannot tell apart. The mark and thin line are the total and its 95 %
    interval. All numbers come from ``gradprobe.stats.decompose``.

    Args:
        ds: Results with both references, as ``probe(..., reference=("bp", "smoothed"))`` gives them.
        copies: n, inside the run or beyond it; default: the run's last.
        estimators: Labels, from top to bottom; all by default.
        layers: Names or globs; all by default. The model's group stays that of everything probed.
        scale: ``raw``, or ``unit-gain``: in the model's group every layer is rescaled to unit gain.
        model: Draw the model's group.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A name or option is unknown, a reference is missing, or there is nothing to draw.
    """
    one_of("scale", scale, ("raw", "unit-gain"))
    size = inches(width)
    labels, names = choose_estimators(ds, estimators), choose_layers(ds, layers)
    n = float(ds["copies"].values[-1]) if copies is None else positive("copies", copies)
    found = groups(ds, labels, names, n, scale, model) if labels else []
    if not found:
        raise UsageError("there is nothing to draw; choose at least one estimator, and a layer or the model.")
    figure = _draw_all(found, size, n)
    figure.gradprobe_caption = caption(ds, found, n, scale)
    given: dict[str, Any] = {"copies": n, "estimators": labels, "layers": names, "scale": scale}
    given |= {"model": model, "width": width}
    record = {"figure": "noise_or_bias", "caption": figure.gradprobe_caption, "arguments": given}
    return finish(figure, record | {"groups": [g.to_dict() for g in found]} | made_from(ds), save)


def _draw_all(found: list[Group], size: float, n: float) -> PaperFigure:
    room, across = _layout.room(len(found), size), _layout.columns(len(found), size)
    with paper():
        figure, axes = _layout.make_grid(len(found), size)
        titles = _layout.titles([Panel(g.name, g.over, g.numel, []) for g in found], room)
        low, high = span(found)
        for axis, group, title in zip(axes, found, titles, strict=True):
            _draw_group(axis, group)
            axis.set_title(title)
            axis.set(xlim=(low, high), ylim=(len(group.bars) - 0.45, -0.55))
            axis.xaxis.set_major_locator(MaxNLocator(5 if room > 1.6 else 3, steps=[1, 2, 2.5, 5, 10]))
        legend = _draw.place_legend(figure, _key(found))
        heads = 0.12 + 1.25 * TITLE_SIZE * (1 + max(t.count("\n") for t in titles)) / 72
        rows = -(-len(found) // across)
        above = legend.get_window_extent(figure._get_renderer()).height / figure.dpi  # type: ignore[attr-defined]  # not public
        height = rows * (heads + 0.12 + max(BAR * len(found[0].bars), 0.4)) + above + 0.3 + LABEL_SIZE / 72
        figure.set_figheight(height)
        figure.supxlabel(f"1 − cosine with backprop at n = {n:,g} copies")
    return figure


def _draw_group(axis: Axes, group: Group) -> None:
    draw_bars(axis, group)
    name_bars(axis, group, [broken(b.estimator) for b in group.bars])


def draw_bars(axis: Axes, group: Group) -> None:
    """All bars of a group."""
    for place, bar in enumerate(group.bars):
        right = left = 0.0
        for part in LOOKS:
            value = bar.segments.get(part, 0.0)
            if not value:
                continue
            start = right if value > 0 else left
            drawn = axis.barh(place, value, 0.74, left=start, linewidth=0, zorder=2, **LOOKS[part])
            drawn.patches[0].set_gid(named(part, bar.place))
            right, left = (right + value, left) if value > 0 else (right, left + value)
        if np.isfinite(bar.total["value"]):
            _mark(axis, bar.total, place, bar.place)
        if bar.note:
            axis.annotate(
                bar.note, (right, place), (2, 0), textcoords="offset points", va="center", color="0.35",
                fontsize=NOTE_SIZE, gid=named("note", bar.place),
            )  # fmt: skip
    axis.axvline(0, color="0.3", linewidth=0.5, zorder=3)


def name_bars(axis: Axes, group: Group, names: list[str]) -> None:
    """The methods' names, and the look of the axes."""
    axis.set_yticks(range(len(group.bars)), [literal(name) for name in names])
    for tick, bar in zip(axis.yaxis.get_major_ticks(), group.bars, strict=True):
        tick.label1.set_gid(named("name", bar.place))
    axis.tick_params(axis="y", length=0, pad=2)
    axis.grid(visible=False)
    axis.grid(axis="x", color="0.92", linewidth=0.4)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)


def _mark(axis: Axes, total: dict[str, float], place: int, method: int) -> None:
    common: dict[str, Any] = {"color": "black", "zorder": 4, "solid_capstyle": "butt"}
    if np.isfinite(total["low"]):
        axis.plot(
            [total["low"], total["high"]], [place] * 2, linewidth=0.6, gid=named("interval", method), **common
        )
    axis.plot(
        [total["value"]] * 2, [place - 0.37, place + 0.37], linewidth=1.0, gid=named("mark", method), **common
    )


def span(found: list[Group]) -> tuple[float, float]:
    """All segments and totals; intervals as far as a tenth beyond them."""
    ends = [0.0]
    for bar in (b for g in found for b in g.bars):
        values = list(bar.segments.values())
        ends += [sum(v for v in values if v > 0), sum(v for v in values if v < 0)]
        ends += [bar.total["value"]]
    shown = np.asarray(ends)[np.isfinite(ends)]
    low, high = float(shown.min()), float(max(shown.max(), 0.01))
    edges = np.asarray([b.total[k] for g in found for b in g.bars for k in ("low", "high")])
    edges = edges[np.isfinite(edges)]
    reach = 0.1 * (high - low)
    low = max(low - reach, min(low, edges.min(initial=low)))
    high = min(high + reach, max(high, edges.max(initial=high)))
    return low - 0.02 * (high - low), high + 0.03 * (high - low)


def broken(label: str) -> str:
    """A long label in lines, broken after commas."""
    if len(label) <= LETTERS:
        return label
    head, bracket, rest = label.partition("(")
    return f"{head}\n{bracket}{rest}" if bracket else label


def _key(found: list[Group]) -> list[Any]:
    shown = {part for g in found for b in g.bars for part in b.segments}
    handles: list[Any] = list(key(shown))
    handles.append(
        Line2D([], [], color="black", linewidth=0.6, marker="|", markersize=6, label="total, 95 %")
    )
    return handles


def caption(ds: xr.Dataset, found: list[Group], n: float, scale: str) -> str:
    """What the figure shows, for which data, and what must not be read into it.

    Args:
        ds: Results.
        found: What is shown.
        n: Copies.
        scale: Scale of the model's group.
    """
    about = ds.attrs.get("problem", "")
    seeds = ds.sizes["seed"]
    said = [
        f"1 - cosine with backprop at n = {n:,g} copies{f' ({about})' if about else ''}, split into smoothing bias "
        "(1 - cosine between the gradients of smoothed and clean loss), bias of the encoding (what the method's own "
        "mean lacks beyond that) and noise (what more copies remove); parts left of zero make up for others.",
        f"Mark and line: total with 95 % interval over {seeds} seeds, for this batch only.",
    ]
    last = int(ds["copies"].values[-1])
    if n > last:
        said.append(f"Predicted by the alignment law: the run ends at {last:,} copies.")
    shown = {part for g in found for b in g.bars for part in b.segments}
    if shown & {"noise + encoding", "encoding + smoothing", "total"}:
        said.append("Hatched: parts that this run cannot tell apart (the ceiling is not resolved).")
    if any(g.over == "model" for g in found):
        how = "rescaled to unit gain" if scale == "unit-gain" else "with their own gains"
        said.append(
            f"Whole model: sum over the probed layers, {how}; layers of unequal gain count as encoding."
            if scale == "raw"
            else f"Whole model: sum over the probed layers, each {how}."
        )
    return " ".join(said)
