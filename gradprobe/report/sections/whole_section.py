"""The figure of the whole model."""

from __future__ import annotations

from markupsafe import Markup

from gradprobe.plots._cards import curve_cards
from gradprobe.plots._choice import Choice
from gradprobe.plots._panels import model_panel
from gradprobe.plots.similarity_figure import REFERENCES, caption
from gradprobe.report.context import Context
from gradprobe.report.elements import tag
from gradprobe.report.sections import register

SIZE = (5.6, 2.5)
"""Inches; the page scales it."""


@register("model", summary="cosine of the whole model against copies", title="Whole model", order=40)
def model(context: Context) -> Markup | None:
    """Cosine with the reference of the direction over all probed layers, against copies."""
    choice = Choice(context.reference, "raw", 0.95, "interval", context.has_law)
    panel = model_panel(context.thin, context.methods, choice)
    axis = f"cosine with {REFERENCES.get(context.reference, context.reference)}"
    figure = next(curve_cards([panel], SIZE, axis))
    drawn = context.svg(figure, "model", "Cosine similarity of the whole model against Monte-Carlo copies")
    notes = [f"{c.estimator}: {c.note}." for c in panel.curves if c.note]
    said = " ".join([caption(context.ds, [panel], choice).replace("each layer and ", ""), *notes])
    return tag("figure", drawn, tag("figcaption", said), class_="wide")
