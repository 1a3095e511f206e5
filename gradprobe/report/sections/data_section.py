"""Data or copies: how much of a direction's error is the batch's, where the run knows it."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from gradprobe.report.batches import MODEL, data_table, knows_data
from gradprobe.report.context import Context
from gradprobe.report.elements import joined, name, tag
from gradprobe.report.sections import register
from gradprobe.report.sheets import Column, Row, sheet
from gradprobe.report.text import cell

NUMBERS = {
    "data_share": ("data", "share of a batch's squared gradient that is noise of the data", ""),
    "copies_variance": ("variance of a copy", "noise of one copy, relative to the squared gradient", "price"),
    "crossover": ("crossover", "copies beyond which more data help more than more copies", "price"),
    "cosine": ("cosine", "with the gradient of unlimited data, after the run's copies of one batch", ""),
}


@register("data", summary="more data or more copies, which would help more", title="Data or copies", order=75)
def data(context: Context) -> Markup | None:
    """One row for each layer and method; nothing where one batch is all that is known."""
    several = set(context.whole.dims) - set(context.ds.dims) == {"batch"}
    ds = context.whole if several else context.ds
    if not knows_data(ds):
        return None
    columns = [Column("layer", False), Column("method", False)]
    for shown, about, _ in NUMBERS.values():
        columns += [Column(shown, True, about), Column(f"{shown} low", True), Column(f"{shown} high", True)]
    rows = [_row(context, values) for values in data_table(ds).to_dict("records")]
    many = ds.sizes.get("batch", 1)
    said = (
        f"Of {many} batch{'es' * (many > 1)}. Low and high: 95 % intervals. Crossover: copies beyond which more data "
        "help more than more copies. All other sections are about "
        f"{'the first batch' if many > 1 else 'this batch'} alone."
    )
    table = sheet(context, "data-or-copies", [*columns, Column("state", False)], rows)
    return joined([tag("p", said, class_="note"), table])


def _row(context: Context, values: dict[Any, Any]) -> Row:
    numbers = []
    for key, (_, _, kind) in NUMBERS.items():
        for end in ("", "_low", "_high"):
            value = float(values[f"{key}{end}"])
            numbers.append((cell(kind, value), value))
    layer, method = str(values["layer"]), str(values["method"])
    shown = (context.method(method), method)
    own = None if layer == MODEL else layer
    return Row([(name(layer), layer), shown, *numbers, str(values["state"])], own, method)
