"""How far surrogate gradients point from the gradient of the smoothed loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradprobe.core.errors import UsageError
from gradprobe.plots import register
from gradprobe.plots._save import finish
from gradprobe.plots._style import NOTE_SIZE, PaperFigure, despine, inches, paper

COLUMNS = (
    "layer",
    "stage",
    "method",
    "sigma",
    "reference",
    "state",
    "ceiling",
    "ceiling_low",
    "ceiling_high",
)
COLORS = ("#6DB3DE", "#0072B2", "#1A2440")
"""Of sigma, light to dark: told apart by lightness."""
MARKERS = ("o", "s", "^")
NAMES = {"bp": "surrogate gradient", "smoothed": "its mean over the noise"}
LINE = 0.105
"""Inches for each sigma of a method."""


@register("bias", summary="ceilings of LR against surrogate gradients, by layer, training stage and sigma")
def bias(
    table: pd.DataFrame, *, width: str | float = "single", save: str | Path | None = None
) -> PaperFigure:
    """Draw ceilings with intervals: one panel for each layer (down) and stage (across), one row for each method.

    Filled markers are the first reference of the table, open ones the second. A bar without a marker is a
    ceiling of which only bounds are known; a cross at the left edge a gradient that vanishes, so that there is
    no ceiling. What lies beyond 0 or 1 is clipped.

    Args:
        table: One row for each ceiling: ``layer``, ``stage``, ``method``, ``sigma``, ``reference`` (at most
            two), ``state``, ``ceiling``, ``ceiling_low``, ``ceiling_high``; at most three values of sigma.
        width: ``single``, ``double``, or inches.
        save: Stem of the files (png, pdf, json); not saved by default.

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A column is missing, there are no rows, or more sigmas or references than can be told apart.
    """
    _check(table)
    layers, stages, methods, references = (
        list(dict.fromkeys(table[name])) for name in ("layer", "stage", "method", "reference")
    )
    sigmas = sorted(set(table["sigma"]))
    with paper():
        height = len(layers) * (LINE * len(sigmas) * len(methods) + 0.2) + 0.95
        figure = PaperFigure(figsize=(inches(width), height), layout="constrained")
        grid = figure.subplots(len(layers), len(stages), sharex=True, sharey=True, squeeze=False)
        for line, layer in zip(grid, layers, strict=True):
            for axis, stage in zip(line, stages, strict=True):
                mine = table[(table["layer"] == layer) & (table["stage"] == stage)]
                _draw(axis, mine, methods, sigmas, references)
                axis.set_title(f"{layer}, {stage}")
                despine(axis)
        grid[0][0].set(xlim=(-0.03, 1.03), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
        grid[0][0].set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
        figure.supxlabel("ceiling: cosine with the gradient of the smoothed loss")
        _legend(figure, sigmas, references, table)
    figure.gradprobe_caption = _caption(table)
    record = {"figure": "bias", "caption": figure.gradprobe_caption, "table": table.to_dict("list")}
    return finish(figure, record, save)


def _check(table: pd.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise UsageError(f"the table of ceilings has no {f'column {missing[0]!r}' if missing else 'rows'}.")
    for name, most in (("sigma", len(COLORS)), ("reference", 2)):
        if (count := table[name].nunique()) > most:
            raise UsageError(f"the table has {count} values of {name}; the figure tells {most} apart.")


def _draw(
    axis: Axes,
    table: pd.DataFrame,
    methods: Sequence[str],
    sigmas: Sequence[float],
    references: Sequence[str],
) -> None:
    step = 1 / (len(sigmas) + 1)
    for _, row in table.iterrows():
        rank, second = sigmas.index(row["sigma"]), references.index(row["reference"])
        y = (
            methods.index(row["method"])
            + step * (rank - (len(sigmas) - 1) / 2)
            + 0.2 * step * (2 * second - 1)
        )
        color = COLORS[rank]
        ends = np.clip([row["ceiling_low"], row["ceiling_high"]], 0, 1)
        if row["state"] == "undefined":
            axis.plot(
                0, y, ls="none", marker="x", color=color, markeredgewidth=0.8, clip_on=False, gid="none"
            )
            continue
        axis.plot(ends, [y, y], color=color, linewidth=0.8, solid_capstyle="butt", zorder=2, gid="interval")
        if np.isfinite(row["ceiling"]):
            value, look = np.clip(row["ceiling"], 0, 1), _look(rank, second)
            axis.plot(value, y, ls="none", zorder=3, clip_on=False, gid="value", **look)
    for between in range(1, len(methods)):
        axis.axhline(between - 0.5, color="0.9", linewidth=0.5, zorder=0)
    axis.axvline(1, color="0.8", linewidth=0.5, zorder=0)
    axis.tick_params(axis="y", length=0)


def _look(rank: int, second: int) -> dict[str, Any]:
    color = COLORS[rank]
    face = "white" if second else color
    look = {"marker": MARKERS[rank], "markerfacecolor": face, "markeredgecolor": color}
    return look | {"markeredgewidth": 0.7, "markersize": 2.9}


def _legend(
    figure: PaperFigure, sigmas: Sequence[float], references: Sequence[str], table: pd.DataFrame
) -> None:
    left = [
        Line2D([], [], color=COLORS[rank], linewidth=0.8, label=f"σ = {sigma:g}", **_look(rank, 0))
        for rank, sigma in enumerate(sigmas)
    ]
    right = []
    for second, name in enumerate(references):
        look = _look(0, second) | {"markeredgecolor": "0.3", "markerfacecolor": "white" if second else "0.3"}
        right.append(Line2D([], [], ls="none", label=NAMES.get(name, name), **look))
    if (table["state"] == "undefined").any():
        right.append(Line2D([], [], ls="none", marker="x", color="0.3", label="no gradient"))
    if table["state"].isin(("bounded", "unresolved")).any():
        right.append(Line2D([], [], color="0.3", linewidth=0.8, label="bounds only"))
    for column in (left, right):  # a legend fills its columns evenly
        column += [Line2D([], [], ls="none", label="")] * (max(len(left), len(right)) - len(column))
    figure.legend(
        handles=left + right,
        loc="outside upper center",
        ncols=2,
        frameon=False,
        handletextpad=0.4,
        labelspacing=0.25,
        fontsize=NOTE_SIZE + 0.5,
    )


def _caption(table: pd.DataFrame) -> str:
    states = table["state"].value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    return (
        "Ceiling of LR: the cosine between its mean, the gradient of the loss smoothed by noise on the layer's "
        "output, and the surrogate gradient (filled) or the mean of the surrogate gradient over the same noise "
        f"(open). Bars: 95 % intervals over seeds, pointwise, for this batch. Of {len(table)} ceilings: {counted}."
    )
