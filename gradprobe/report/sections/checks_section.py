"""Doctor's table: what was looked at before anything was computed, what is fine too."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from gradprobe.checkup import CHECKS
from gradprobe.report.context import Context
from gradprobe.report.elements import joined, sentences, tag
from gradprobe.report.elements import name as name_of
from gradprobe.report.looks import doctor_table
from gradprobe.report.sections import register
from gradprobe.report.sheets import scrolled
from gradprobe.store.assemble import attribute

NUMBERS = "Numbers are relative differences; ulp are the steps of rounding by which noise moves the loss."


@register("doctor", summary="what doctor's quick look saw before the run", title="Doctor", order=30)
def doctor(context: Context) -> Markup | None:
    """Findings of the whole problem, a table of layers by checks, and the sentences of warnings."""
    found = doctor_table(context.ds)
    warned = attribute(context.ds, "doctor") or []
    said = sentences(f"{w['check']}: {w['sentence']}" for w in warned) if warned else None
    if found is None:
        words = "This run holds no table of doctor's: it was made before tables were stored, or nothing was computed."
        return joined([tag("p", words, class_="lacks"), said])
    problem, layers = found
    rows = (
        tag(
            "tr",
            tag("th", r["check"], scope="row"),
            _status(r["status"]),
            tag("td", r["sentence"], class_="sentence"),
        )
        for r in problem.to_dict("records")
    )
    head = tag(
        "thead", tag("tr", *(tag("th", x, scope="col") for x in ("check", "status", "what was found")))
    )
    whole = scrolled(tag("table", head, tag("tbody", *rows)), "Doctor on the whole problem")
    return joined([whole, said, _layers(context, layers)])


def _status(status: Any) -> Markup:
    kind = status if status in ("ok", "warning", "refused") else None
    return tag("td", status, class_=kind)


def _layers(context: Context, table: Any) -> Markup | None:
    if table.empty:
        return None
    known = set(context.layers)
    means = {entry.name: entry.summary for entry in CHECKS}
    heads = (tag("th", x, scope="col", title=means.get(x)) for x in ("layer", *table.columns))
    head = tag("thead", tag("tr", *heads))
    rows = (
        tag(
            "tr",
            tag("th", name_of(name), scope="row"),
            *(_status(cell) for cell in cells),
            data_l=context.layer_at(name) if name in known else None,
        )
        for name, cells in zip(table.index, table.values.tolist(), strict=True)
    )
    inner = scrolled(tag("table", head, tag("tbody", *rows)), "Doctor on each layer")
    words = "; ".join(f"{x}: {means[x]}" for x in table.columns if x in means)
    about = tag("p", f"{words}. {NUMBERS}", class_="note")
    return tag(
        "details", tag("summary", f"{len(table)} layers, one by one"), about, inner, open=len(table) <= 12
    )
