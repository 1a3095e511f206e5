"""What quality costs: the cost figure of the whole model, and which method leads at which cost."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from gradprobe.core.errors import UsageError
from gradprobe.plots import PLOTS
from gradprobe.report.context import Context
from gradprobe.report.elements import sentences, tag
from gradprobe.report.sections import register
from gradprobe.report.text import cell
from gradprobe.stats import STATISTICS


@register(
    "cost", summary="cosine against cost, and the best method at every cost", title="Cost frontier", order=70
)
def cost(context: Context) -> Markup | None:
    """The house's cost figure of the whole model, and the frontier in sentences."""
    if not context.has_law:
        raise UsageError("A frontier of costs needs at least two blocks of copies; this run has one.")
    figure = PLOTS.get("cost")(context.ds, layers=[], reference=context.reference, width=5.6)
    drawn = context.svg(figure, "cost", "Cosine similarity of the whole model against cost")
    found = STATISTICS.get("frontier")(context.ds, over="model", reference=context.reference)
    leads = []
    for method in np.array(context.methods)[np.argsort(found["leads_from"].values, kind="stable")]:
        start, end = (float(found[k].sel(estimator=method)) for k in ("leads_from", "leads_to"))
        if np.isfinite(start):
            inside = found["best"].values == method
            sure = bool(found["resolved"].values[inside].any())
            words = (
                "with a lead that is resolved in part at least" if sure else "with a lead that may be noise"
            )
            span = " to ".join(cell("price", x) for x in (start, end))
            leads.append(f"{method} is best from {span} full-forward equivalents, {words}.")
    shown = (
        sentences(leads)
        if leads
        else tag("p", "No method leads at any cost that was looked at.", class_="lacks")
    )
    said = figure.gradprobe_caption.replace("each layer and ", "").replace(
        "; panels differ in the costs shown", ""
    )
    return shown + tag("figure", drawn, tag("figcaption", said), class_="wide")
