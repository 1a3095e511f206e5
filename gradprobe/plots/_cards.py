"""Small figures of one layer each, for pages with many of them: fixed margins, one scale for all, no legend."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradprobe.plots import _draw, _layout, parts_figure
from gradprobe.plots._panels import Panel
from gradprobe.plots._parts import Group
from gradprobe.plots._style import LABEL_SIZE, PaperFigure, despine, paper

Size = tuple[float, float]
CARD: Size = (2.9, 1.65)
"""Inches; a page scales it to what it has."""

_LEFT, _BOTTOM, _TOP = 0.4, 0.34, 0.08


def curve_cards(panels: Sequence[Panel], size: Size = CARD, quantity: str = "cosine") -> list[PaperFigure]:
    """The panels of the similarity figure, each as a figure of its own.

    Args:
        panels: What is shown; all have the same scales.
        size: Width and height of each, in inches.
        quantity: Label of the vertical axis.
    """
    found = list(panels)
    places = _draw.slots(found, size[0])
    strip = (max(places.values()) + 2 * _draw.STRIP_GAP) / 72 if places else 0.05
    figures = []
    with paper(marks=1.0):
        axes = []
        for _ in found:
            figure, axis = _frame(size, _LEFT, strip)
            axis.grid(axis="y", color="0.92", linewidth=0.4)
            despine(axis)
            figures.append(figure)
            axes.append(axis)
        _layout.set_scales(axes, found, "log", size[0] - _LEFT - strip)
        for axis, panel in zip(axes, found, strict=True):
            _draw.draw_panel(axis, panel)
            _draw.draw_ceilings(axis, panel, places, labelled=True)
            axis.set_xlabel("copies", labelpad=1.0)
            axis.set_ylabel(quantity, labelpad=1.5)
    return figures


def bar_cards(groups: Sequence[Group], width: float = CARD[0]) -> list[PaperFigure]:
    """The groups of the figure of noise and bias, each as a figure of its own.

    Args:
        groups: What is shown; all have the same scale.
        width: Of each, in inches.
    """
    found = list(groups)
    low, high = parts_figure.span(found)
    figures = []
    for group in found:
        height = _BOTTOM + _TOP + parts_figure.BAR * max(len(group.bars), 2)
        with paper():
            lines = [x for b in group.bars for x in parts_figure.broken(b.estimator).split("\n")]
            longest = max(map(len, lines), default=0)
            figure, axis = _frame((width, height), min(0.15 + 0.062 * longest, 0.45 * width), 0.08)
            parts_figure.draw_group(axis, group)
            despine(axis)
            axis.spines["left"].set_visible(False)
            axis.set(xlim=(low, high), ylim=(len(group.bars) - 0.45, -0.55))
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
            axis.set_xlabel("1 − cosine", labelpad=1.0)
        figures.append(figure)
    return figures


def _frame(size: Size, left: float, right: float) -> tuple[PaperFigure, Axes]:
    width, height = size
    figure = PaperFigure(figsize=size)
    room = (1 - (left + right) / width, 1 - (_BOTTOM + _TOP) / height)
    axis = figure.add_axes((left / width, _BOTTOM / height, *room))
    axis.xaxis.label.set_fontsize(LABEL_SIZE)
    return figure, axis
