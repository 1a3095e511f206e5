"""Small figures of one layer each, for pages with many of them: fixed margins, one scale for all, no legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradprobe.plots import _draw, _layout, parts_figure
from gradprobe.plots._panels import Panel
from gradprobe.plots._parts import Group
from gradprobe.plots._style import LABEL_SIZE, PaperFigure, despine, paper

Size = tuple[float, float]
CARD: Size = (2.9, 1.65)
"""Inches; a page scales it to what it has."""

LETTERS = 18
"""Longest name beside a bar."""

_LEFT, _BOTTOM, _TOP = 0.4, 0.34, 0.08


def curve_cards(
    panels: Sequence[Panel], size: Size = CARD, quantity: str = "cosine"
) -> Iterator[PaperFigure]:
    """The panels of the similarity figure, each as a figure of its own.

    It is one figure, drawn anew for each: use it before the next is asked for. From the second on it is without axes,
    which are those of the first: they take most of the time.

    Args:
        panels: What is shown; all have the same scales.
        size: Width and height of each, in inches.
        quantity: Label of the vertical axis.
    """
    found = list(panels)
    places = _draw.slots(found, size[0]) if found else {}
    strip = (max(places.values()) + 2 * _draw.STRIP_GAP) / 72 if places else 0.05
    with paper():
        figure, axis = _frame(size, _LEFT, strip)
        axis.grid(axis="y", color="0.92", linewidth=0.4)
        despine(axis)
        axis.set_xlabel("copies", labelpad=1.0)
        axis.set_ylabel(quantity, labelpad=1.5)
    if found:
        _layout.set_scales([axis], found, "log", size[0] - _LEFT - strip)
    for panel in found:
        with paper():
            _draw.draw_panel(axis, panel, spare=True)
            _draw.draw_ceilings(axis, panel, places, labelled=True)
        yield figure
        _clear(axis)


def bar_cards(groups: Sequence[Group], width: float = CARD[0]) -> Iterator[PaperFigure]:
    """The groups of the figure of noise and bias, each as a figure of its own; likewise.

    Args:
        groups: What is shown; all have the same methods and scale.
        width: Of each, in inches.
    """
    found = list(groups)
    if not found:
        return
    low, high = parts_figure.span(found)
    bars = found[0].bars
    height = _BOTTOM + _TOP + parts_figure.BAR * max(len(bars), 2)
    with paper():
        names = [_short(b.estimator) for b in bars]
        figure, axis = _frame((width, height), 0.15 + 0.062 * max(map(len, names)), 0.08)
        parts_figure.name_bars(axis, found[0], names)
        despine(axis)
        axis.spines["left"].set_visible(False)
        axis.set(xlim=(low, high), ylim=(len(bars) - 0.45, -0.55))
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.set_xlabel("1 − cosine", labelpad=1.0)
    for group in found:
        with paper():
            parts_figure.draw_bars(axis, group)
        yield figure
        _clear(axis)


def _short(name: str) -> str:
    """A name in one short line, without its middle if need be."""
    half = LETTERS // 2
    return name if len(name) <= LETTERS else f"{name[:half]}…{name[-half:]}"


def _clear(axis: Axes) -> None:
    """Take away what was drawn, and the axes that the first picture has."""
    for artist in [*axis.lines, *axis.patches, *axis.collections, *axis.texts, *axis.artists]:
        artist.remove()
    axis.set_axis_off()


def _frame(size: Size, left: float, right: float) -> tuple[PaperFigure, Axes]:
    width, height = size
    figure = PaperFigure(figsize=size)
    room = (1 - (left + right) / width, 1 - (_BOTTOM + _TOP) / height)
    axis = figure.add_axes((left / width, _BOTTOM / height, *room))
    axis.xaxis.label.set_fontsize(LABEL_SIZE)
    return figure, axis
