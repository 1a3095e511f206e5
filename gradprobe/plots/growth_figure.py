"""How the cost of a capture grows with the size of the problem."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns

from gradprobe.core.errors import UsageError
from gradprobe.plots import register
from gradprobe.plots._save import finish
from gradprobe.plots._style import PaperFigure, despine, inches, paper

COLUMNS = ("factor", "value", "part", "seconds")
COLORS = ("#0072B2", "#999933", "#882255")
MARKERS = ("o", "s", "^")


@register(
    "growth", summary="seconds of a capture and of its parts against one factor of the problem's size each"
)
def growth(
    table: pd.DataFrame, *, width: str | float = "double", save: str | Path | None = None
) -> PaperFigure:
    """Draw measured times against what was varied, one panel for each factor, both axes logarithmic.

    Args:
        table: One row for each measurement: ``factor`` (what was varied, with its unit), ``value``, ``part``
            (what was timed) and ``seconds``.
        width: ``single``, ``double``, or inches.
        save: Stem of the files (png, pdf, json); not saved by default.

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A column is missing, or there are no rows.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise UsageError(f"the table of times has no {'rows' if not missing else f'column {missing[0]!r}'}.")
    factors, parts = list(dict.fromkeys(table["factor"])), list(dict.fromkeys(table["part"]))
    with paper():
        size = inches(width)
        figure = PaperFigure(figsize=(size, size / len(factors) * 0.95 + 0.35), layout="constrained")
        axes = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
        for axis, factor in zip(axes, factors, strict=True):
            mine = table[table["factor"] == factor]
            sns.lineplot(
                mine,
                x="value",
                y="seconds",
                hue="part",
                style="part",
                hue_order=parts,
                style_order=parts,
                palette=list(COLORS[: len(parts)]),
                markers=list(MARKERS[: len(parts)]),
                dashes=False,
                errorbar=None,
                legend=axis is axes[0],
                ax=axis,
            )
            values = sorted(set(mine["value"]))
            axis.set(xscale="log", yscale="log", xlabel=factor, ylabel="seconds" if axis is axes[0] else "")
            axis.set_xticks(values, [f"{v:g}" for v in values])
            axis.minorticks_off()
            despine(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].get_legend().remove()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(parts), frameon=False)
    figure.gradprobe_caption = (
        "Median seconds of one capture; every other factor as in the note of the script."
    )
    return finish(figure, {"caption": figure.gradprobe_caption, "table": table.to_dict("list")}, save)
