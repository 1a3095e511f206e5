"""Grid of panels that share their axes: how many columns, how large, which ticks, which titles."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gradprobe.plots._panels import Curve, Panel
from gradprobe.plots._style import LABEL_SIZE, LETTER, TITLE_SIZE, PaperFigure, despine, literal


def columns(count: int, width: float) -> int:
    """Columns of a grid of ``count`` panels in a figure of ``width`` inches, with rows as full as possible."""
    if width < 5:
        most = 2 if count <= 12 else 3
    else:
        most = 4 if count <= 16 else 5 if count <= 40 else 6
    return math.ceil(count / math.ceil(count / most))


def room(count: int, width: float) -> float:
    """Width of one of ``count`` panels, in inches."""
    return (width - 0.5) / columns(count, width)


def make_grid(count: int, width: float) -> tuple[PaperFigure, list[Axes]]:
    """A figure with that many empty panels, row by row; :func:`set_height` gives it its height."""
    across = columns(count, width)
    figure = PaperFigure(figsize=(width, width), layout="constrained")
    grid = figure.subplots(math.ceil(count / across), across, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    for index, axis in enumerate(axes[:count]):
        axis.tick_params(labelbottom=index + across >= count, labelleft=index % across == 0)
        axis.grid(axis="y", color="0.92", linewidth=0.4)
        despine(axis)
    return figure, axes[:count]


def set_height(figure: PaperFigure, heads: list[float], legend: Legend, width: float) -> None:
    """Make the figure as high as its panels, their heads and its legend need; it may be longer than a page.

    Args:
        figure: The figure.
        heads: Height of each panel's title and notes, in inches.
        legend: The legend.
        width: Width of the figure in inches.
    """
    across = columns(len(heads), width)
    panel = max(0.85, min(0.6 * room(len(heads), width), 1.5))
    rows = [panel + 0.12 + max(heads[i : i + across]) for i in range(0, len(heads), across)]
    key = legend.get_window_extent(figure._get_renderer()).height / figure.dpi  # type: ignore[attr-defined]  # not public
    ticks_and_label = 0.4
    figure.set_figheight(sum(rows) + key + ticks_and_label)


def set_scales(axes: list[Axes], panels: list[Panel], xscale: str, space: float) -> None:
    """The same scales for all panels: all copies, and cosines from 0 (or below, if need be) to 1 or less.

    Args:
        axes: The panels on paper.
        panels: What they show.
        xscale: ``log`` or ``linear``.
        space: Width of one panel in inches, without its strip.
    """
    curves = [c for p in panels for c in p.curves]
    bottom, top = _range(curves)
    copies = curves[0].copies
    first, last = float(copies[0]), float(copies[-1])
    for axis in axes:  # set for each: matplotlib's shared axes cost the square of their number
        axis.set_ylim(bottom, top)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_xscale(xscale)
        if first == last:
            axis.set_xlim(0.5 * first, 2 * last)
            axis.xaxis.set_major_locator(FixedLocator([first]))
            axis.xaxis.set_minor_locator(NullLocator())
        elif xscale == "log":
            axis.set_xlim(first / 1.12, last * 1.12)
            axis.xaxis.set_major_locator(LogLocator(subs=_digits(last / first, space), numticks=12))
        else:
            axis.set_xlim(0, 1.03 * last)
            axis.xaxis.set_major_locator(MaxNLocator(4 if space > 1.2 else 3))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())


def _range(curves: list[Curve]) -> tuple[float, float]:
    """All means and ceilings; bands up to 1, and below 0 up to a tenth of the height."""
    ceilings = [c.ceiling["value"] for c in curves if c.resolved]
    shown = np.concatenate([*(c.mean for c in curves), ceilings])
    edges = np.concatenate([x for c in curves for x in (c.low, c.high)])
    shown, edges = shown[np.isfinite(shown)], edges[np.isfinite(edges)]
    top = max(0.05, shown.max(initial=0.05), min(1.0, edges.max(initial=0.0)))
    top = 1.04 * max(top, 1.0 if top > 0.5 else 0.0)
    bottom = min(shown.min(initial=0.0), max(edges.min(initial=0.0), -0.1 * top))
    return float(bottom - 0.03 * top), float(top)


def _digits(span: float, space: float) -> tuple[float, ...]:
    """Leading digits of the labelled copies: as many as there is room for."""
    decades = max(math.log10(span), 0.5)
    for digits in ((1.0, 2.0, 5.0), (1.0, 3.0)):
        if len(digits) * decades * 0.3 < space:
            return digits
    return (1.0,)


def titles(panels: list[Panel], width: float) -> list[str]:
    """Name and number of weights of each panel, broken and shortened so that they fit.

    Args:
        panels: The panels.
        width: Width of one panel in inches.
    """
    letters = int(width * 72 / (LETTER * TITLE_SIZE))
    weights = [f"{p.numel:,} {p.of if p.numel != 1 else p.of.removesuffix('s')}" for p in panels]
    short = [f"{p.name} · {w}" for p, w in zip(panels, weights, strict=True)]
    if max(map(len, short)) <= letters:
        return [literal(x) for x in short]
    names = [p.name for p in panels]
    if max(map(len, names)) > letters:
        names = _without_prefix(panels)
    return [literal(f"{_broken(n, letters)}\n{w}") for n, w in zip(names, weights, strict=True)]


def _without_prefix(panels: list[Panel]) -> list[str]:
    """Names of layers without the dotted beginning that all of them share ("encoder.layers.")."""
    parts = [p.name.split(".") for p in panels if p.over == "layer"]
    shared = 0
    while len(parts) > 1 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    cut = sum(len(x) + 1 for x in parts[0][:shared]) if parts else 0
    return ["…" + p.name[cut:] if cut and p.over == "layer" else p.name for p in panels]


def _broken(name: str, letters: int) -> str:
    """A name in one line, or in two (broken after a dot or space), shortened in the middle if need be."""
    if len(name) <= letters:
        return name
    breaks = [i + 1 for i, c in enumerate(name[:-1]) if c in "._ "]
    fitting = [b for b in breaks if max(b, len(name) - b) <= letters]
    if fitting:
        at = min(fitting, key=lambda b: abs(2 * b - len(name)))
        return name[:at].rstrip() + "\n" + name[at:]
    head, tail = name[: letters - 1], name[-letters + 1 :]
    return f"{head}…\n…{tail}" if len(name) > 2 * letters - 2 else f"{name[:letters]}\n{name[letters:]}"


def axis_label(text: str, length: float) -> str:
    """A label in two lines if one is longer than ``length`` inches."""
    if len(text) * LETTER * LABEL_SIZE / 72 <= length:
        return text
    return text.replace(" with ", "\nwith ", 1)
