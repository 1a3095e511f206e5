"""Tables that readers sort, filter and copy: complete without JavaScript, full precision behind what is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from gradprobe.report.context import Context, one_line
from gradprobe.report.elements import joined, tag


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Its heading.
        numeric: Whether it holds numbers: aligned right, sorted by value.
        about: What it is, shown as a tooltip.
    """

    name: str
    numeric: bool = True
    about: str = ""


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        cells: For each column what is shown, or (what is shown, its value): the value is sorted by and copied.
        layer: The layer that it belongs to; None for one that no filter of layers hides.
        method: The method that it belongs to; None for one that stays whatever methods are shown.
    """

    cells: Sequence[Any]
    layer: str | None = None
    method: str | None = None


def sheet(context: Context, name: str, columns: Sequence[Column], rows: Sequence[Row]) -> Markup:
    """A table with buttons to sort it, copy it as CSV or LaTeX and save it.

    Args:
        context: What the page is about.
        name: Stem of the file that is saved; letters, digits and hyphens.
        columns: Columns.
        rows: Rows, in the order in which they are shown first.
    """
    heads = (_head(column) for column in columns)
    body = (_row(context, columns, row) for row in rows)
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), class_="sheet", data_name=name)
    actions = (("csv", "Copy as CSV"), ("latex", "Copy as LaTeX"), ("save", "Save CSV"))
    buttons = (tag("button", words, type="button", data_do=does) for does, words in actions)
    tools = tag("div", *buttons, tag("span", class_="told", role="status"), class_="tools", data_for=name)
    return tag("div", tools, scrolled(table, name), class_="sheetbox")


def scrolled(table: Markup, label: str) -> Markup:
    """A box in which a wide table scrolls, by keyboard too."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _head(column: Column) -> Markup:
    button = tag("button", column.name, type="button", title=column.about or None)
    kind = "number" if column.numeric else None
    return tag("th", button, scope="col", class_=kind, data_name=column.name, aria_sort="none")


def _row(context: Context, columns: Sequence[Column], row: Row) -> Markup:
    cells = joined(
        _cell(c, content, i == 0) for i, (c, content) in enumerate(zip(columns, row.cells, strict=True))
    )
    layer = None if row.layer is None else context.layer_at(row.layer)
    return tag("tr", cells, data_l=layer, class_=None if row.method is None else context.place(row.method))


def _cell(column: Column, content: Any, first: bool) -> Markup:
    shown, value = content if isinstance(content, tuple) else (content, None)
    kind = "number" if column.numeric else None
    if first:
        return tag("th", shown, scope="row", class_=kind, data_v=_written(value))
    return tag("td", shown, class_=kind, data_v=_written(value))


def _written(value: Any) -> str | None:
    """A value in full: numbers so that they read back alike, nothing where there is none."""
    if value is None:
        return None
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return one_line(value)
