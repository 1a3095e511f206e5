"""What was kept as signs between forward and read-out, where a run did so."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.elements import joined, name, tag
from gradprobe.report.intermediates import SAID, intermediates, size, times
from gradprobe.report.sections import register
from gradprobe.report.sheets import Column, Row, sheet


@register(
    "storage", summary="bytes of a copy's intermediates, as kept and as numbers", title="Storage", order=77
)
def storage(context: Context) -> Markup | None:
    """One row for each method; nothing where everything was kept as numbers."""
    found = intermediates(context.ds)
    if not len(found):
        return None
    columns = [
        *(Column("method", False), Column("layer", False)),
        *(Column("as kept", True), Column("as numbers", True), Column("times less", True)),
    ]
    rows = [_row(context, values) for values in found.to_dict("records")]
    return joined([tag("p", SAID, class_="note"), sheet(context, "storage", columns, rows)])


def _row(context: Context, values: dict[Any, Any]) -> Row:
    layer, method = str(values["layer"]), str(values["method"])
    kept, numbers, less = (float(values[key]) for key in ("as kept", "as numbers", "times less"))
    shown = [(size(kept), kept), (size(numbers), numbers), (times(less), less)]
    return Row([(context.method(method), method), (name(layer), layer), *shown], None, method)
