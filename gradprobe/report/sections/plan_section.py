"""A plan: the cheapest method and copies for each layer."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from gradprobe.report.context import Context
from gradprobe.report.elements import joined, name, sentences, tag
from gradprobe.report.plans import cells, headers, plan_table
from gradprobe.report.sections import register
from gradprobe.report.sheets import Column, Row, sheet
from gradprobe.report.text import cell

WORDS = 2
"""Columns of a plan that are no numbers."""


@register("plan", summary="cheapest method and copies for each layer", title="Plan", order=80)
def plan(context: Context) -> Markup | None:
    """What each layer should get for the target cosine, and what single methods would need."""
    found = plan_table(context.ds, context.cosine, context.reference)
    if found.plan is None:
        return tag("p", found.why, class_="lacks")
    columns = [Column(name, i >= WORDS) for i, name in enumerate(headers(found.plan))]
    rows = []
    for row in found.plan.layers:
        shown = cells(row)
        values = (row.layer, row.method or "none", row.copies, row.scale, row.cost, row.share, row.cosine)
        method = row.method if row.method in context.methods else None
        shown[0] = name(row.layer)
        if method is not None:
            shown[1] = context.method(method)
        rows.append(Row(list(zip(shown, map(_value, values), strict=True)), row.layer, None))
    heading = f"{found.heading}, held against {context.reference}."
    parts = [tag("p", heading), sheet(context, "plan", columns, rows)]
    return joined([*parts, _rivals(context, found), sentences([found.bound, *found.notes], "said quiet")])


def _value(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if isinstance(value, (int, float)) else str(value)


def _rivals(context: Context, found: Any) -> Markup | None:
    if found.rivals.empty:
        return None
    budget = found.plan.goal == "budget"
    what = "cosine" if budget else "cost"
    columns = [Column("one method in all layers", False), Column(f"{what}, equal copies")]
    columns += [Column(f"{what}, its best shares"), Column("plan against it"), Column("note", False)]
    rows = []
    for row in found.rivals.to_dict("records"):
        method = row["method"]
        named = context.method(method) if method in context.methods else method
        kinds = {
            "equal": "cosine" if budget else "price",
            "best": "cosine" if budget else "price",
            "times": "",
        }
        numbers = [_shown(kind, row[k]) for k, kind in kinds.items()]
        own = method if method in context.methods else None
        rows.append(Row([(named, method), *numbers, name(row["note"] or "")], None, own))
    return sheet(context, "single-methods", columns, rows)


def _shown(kind: str, value: Any) -> tuple[str, float]:
    number = math.nan if value is None else float(value)
    return cell(kind, number), number
