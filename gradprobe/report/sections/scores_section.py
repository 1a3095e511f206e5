"""Acc. and Sta. of the whole model, of the mean over layers and of every layer: sorted and copied by the reader."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.elements import joined, tag
from gradprobe.report.elements import name as name_of
from gradprobe.report.sections import register
from gradprobe.report.sheets import Column, Row, sheet
from gradprobe.report.tables import per_layer, summary, whole_model
from gradprobe.report.text import cell

ABOUT = {
    "Acc.": "mean cosine over the range of copies",
    "Sta.": "scatter of the cosine around a line in copies",
    "floor": "the Sta. that the curvature of a noiseless curve gives alone",
    "residual": "scatter around the alignment law",
    "ceiling": "the cosine that no number of copies passes",
    "ceiling low": "lower end of its 95 % interval over seeds",
    "ceiling high": "upper end of its 95 % interval over seeds",
    "half-power": "copies at which 1/cos² is twice its limit",
    "half-power low": "lower end of its 95 % interval over seeds",
    "half-power high": "upper end of its 95 % interval over seeds",
}
EXPLAINED = ("Acc.", "Sta.", "floor", "residual")
"""Columns whose meaning stands above the table; that of the others stands above the heat maps."""


@register("scores", summary="Acc. and Sta., to be sorted and copied", title="Acc. and Sta.", order=60)
def scores(context: Context) -> Markup | None:
    """One table: whole model, mean over layers, then each layer, under every method."""
    asked = (context.ds, context.copies, context.reference)
    rows = []
    for values in whole_model(*asked).to_dict("records"):
        rows.append(_row(context, "whole model", values, None))
    for values in summary(*asked, "layer").reset_index().to_dict("records"):
        rows.append(_row(context, "mean over layers", values, None))
    for values in per_layer(*asked).to_dict("records"):
        rows.append(_row(context, values["layer"], values, values["layer"]))
    columns = [Column("layer", False), Column("method", False)]
    columns += [Column(name, True, about) for name, about in ABOUT.items()] + [Column("state", False)]
    first, last = context.copies or (int(context.ds["copies"][0]), int(context.ds["copies"][-1]))
    about = (
        f"Acc. and Sta. over {first:,} to {last:,} copies, mean over seeds, for this batch; of nested prefixes: do "
        "not compare Sta. with fresh estimates. Empty: not resolved. Click a heading to sort; what is copied is what "
        "is shown, in its order."
    )
    meaning = "; ".join(f"{name}: {ABOUT[name]}" for name in EXPLAINED)
    notes = (tag("p", f"{meaning}.", class_="note"), tag("p", about, class_="note"))
    return joined([*notes, sheet(context, "accuracy", columns, rows)])


def _row(context: Context, name: str, values: dict[Any, Any], layer: str | None) -> Row:
    method, numbers = str(values["method"]), []
    for column in ABOUT:
        value = values.get(column)
        kind = "half-power" if column.startswith("half-power") else column
        numbers.append(("", "") if value is None else (cell(kind, float(value)), float(value)))
    shown = (context.method(method), method)
    return Row([(name_of(name), name), shown, *numbers, str(values.get("state", ""))], layer, method)
