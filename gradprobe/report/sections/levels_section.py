"""Levels of noise that were probed beside weights: the similarity figure of their own, and their law."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.plots import PLOTS
from gradprobe.report.context import Context, one_run
from gradprobe.report.elements import tag
from gradprobe.report.sections import register
from gradprobe.report.tables import by_layer
from gradprobe.report.text import cell, interval
from gradprobe.store.levels import levels_beside, reference_of_levels

COLUMNS = ("level", "method", "cosine", "ceiling", "half-power copies", "price", "gain", "state")


@register(
    "levels", summary="levels of noise, held against the smoothed gradient", title="Levels of noise", order=95
)
def levels(context: Context) -> Markup | None:
    """Figure and table of the levels; nothing where the page is of them, or there are none."""
    part = levels_beside(one_run(context.whole))
    if part is None:
        return None
    held = reference_of_levels(part, context.reference)
    figure = PLOTS.get("similarity")(part, reference=held, width=5.6)
    drawn = context.svg(
        figure, "levels", "Cosine similarity of the derivatives with respect to levels of noise"
    )
    rows = []
    for row in by_layer(part, held).to_dict("records"):
        if row["state"] == "refused":
            continue
        shown = [str(row["layer"]), str(row["method"]), cell("cosine", row["cosine"])]
        shown += [interval(row, name) for name in ("ceiling", "half_copies")]
        shown += [cell(name, row[name]) for name in ("price", "gain", "state")]
        rows.append(tag("tr", *(tag("td", text) for text in shown)))
    head = tag("tr", *(tag("th", name) for name in COLUMNS))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("figure", drawn, tag("figcaption", figure.gradprobe_caption), class_="wide") + table
