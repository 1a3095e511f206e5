"""Heat maps of the two numbers of the alignment law: ceiling and half-power copies, layer by method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from gradprobe.core.errors import UsageError
from gradprobe.report.context import Context
from gradprobe.report.elements import joined, tag
from gradprobe.report.elements import name as name_of
from gradprobe.report.sections import register
from gradprobe.report.sheets import scrolled
from gradprobe.report.text import cell

KNOWN = ("resolved", "too few seeds")
PLAIN = ("bounded", "unresolved")


@register(
    "heatmap",
    summary="ceiling and half-power copies of every layer under every method",
    title="Ceilings and half-power copies",
    order=50,
)
def heatmap(context: Context) -> Markup | None:
    """Two tables of coloured cells; intervals and states are in the tooltips, and in the table that can be copied."""
    if not context.has_law:
        raise UsageError(
            "A ceiling needs at least two blocks of copies; this run has one: probe more copies."
        )
    law = context.law()
    both = (
        ("ceiling", "Ceiling: the cosine that no number of copies passes", _shade),
        (
            "half_copies",
            "Half-power copies: where 1/cos² is twice its limit",
            _log_shade(law["half_copies"].values),
        ),
    )
    tables = (
        tag("div", tag("h3", title), _table(context, law, name, title, shade)) for name, title, shade in both
    )
    about = (
        "The stronger the colour, the higher. Italic: bounded, only a lower end of the ceiling is known (≥). "
        "Striped: unresolved, where there is only noise there is no number. A ceiling slightly above 1 is noise. "
        "Point at a cell for its 95 % interval over seeds, for this batch."
    )
    return joined([tag("div", *tables, class_="pair"), tag("p", about, class_="note")])


def _shade(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))


def _log_shade(values: Any) -> Callable[[float], float]:
    known = np.log(values[np.isfinite(values) & (values > 0)])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    span = max(high - low, 1e-9)
    return lambda value: float(np.clip((math.log(value) - low) / span, 0.0, 1.0)) if value > 0 else 0.0


def _table(
    context: Context, law: xr.Dataset, name: str, title: str, shade: Callable[[float], float]
) -> Markup:
    heads = (tag("th", context.method(m), scope="col", class_=context.place(m)) for m in context.methods)
    head = tag("thead", tag("tr", tag("th", "layer", scope="col"), *heads))
    ends = {
        key: law[key].transpose("layer", "estimator")
        for key in (name, f"{name}_low", f"{name}_high", "state")
    }
    place = {str(x): i for i, x in enumerate(law["layer"].values)}
    rows = []
    for at, layer in enumerate(context.layers):
        values = {key: ends[key].values[place[layer]] for key in ends}
        cells = (
            _cell(context, layer, m, name, [values[k][j] for k in ends], shade)
            for j, m in enumerate(context.methods)
        )
        rows.append(tag("tr", tag("th", name_of(layer), scope="row"), *cells, data_l=at))
    return scrolled(tag("table", head, tag("tbody", *rows), class_="heat"), title)


def _cell(
    context: Context, layer: str, method: str, name: str, found: list[Any], shade: Callable[[float], float]
) -> Markup:
    value, low, high, state = float(found[0]), float(found[1]), float(found[2]), str(found[3])
    low_end, high_end = (cell(name, end) for end in (low, high))
    interval = f"{low_end or '?'} to {high_end or '?'}" if low_end or high_end else "none"
    hint = f"{layer}, {method}: {cell(name, value) or 'no value'}; interval {interval}; {state}"
    known = math.isfinite(value) and (state in KNOWN or (state == "bounded" and name != "ceiling"))
    bound = low if state == "bounded" and name == "ceiling" and math.isfinite(low) else math.nan
    kind = state if state in PLAIN else None
    if known:
        shown, level = cell(name, value), shade(value)
    elif math.isfinite(bound):
        shown, level = f"≥ {cell(name, bound)}", shade(bound)
    else:
        shown, level = "–" if state == "unresolved" else state, None
    style = None if level is None else f"--v:{level:.2f}"
    lacks = "unresolved" if level is None else kind
    return tag(
        "td", shown, title=hint, style=style, class_=" ".join(filter(None, [context.place(method), lacks]))
    )
