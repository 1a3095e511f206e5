"""Small pieces of HTML that read well in a notebook: without JavaScript, in light and dark themes, when narrow.

Colours come from the page (``currentColor``, shades of grey with transparency). Where a viewer takes styles away, as
for notebooks that are not trusted, plain tables are left.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

MOST_ROWS = 24
"""Rows of a table that are shown."""
MOST_COLUMNS = 12
"""Columns that are shown, besides the names of rows."""

_LINE = "1px solid rgba(128,128,128,.35)"
STYLE = (
    "<style>"
    ".gp-view{max-width:100%;line-height:1.35;overflow-wrap:anywhere}"
    ".gp-view :is(p,ul){margin:.3em 0}"
    ".gp-view .gp-scroll{overflow-x:auto;max-width:100%}"
    ".gp-view .gp-scroll table{border-collapse:collapse;margin:.4em 0;color:inherit;background:none;border:0;"
    "font-size:.92em;font-variant-numeric:tabular-nums;table-layout:auto}"
    ".gp-view .gp-scroll :is(th,td){padding:.2em .7em;text-align:right;vertical-align:top;white-space:nowrap;"
    f"color:inherit;background:none;border:0;border-bottom:{_LINE};max-width:48em}}"
    ".gp-view .gp-scroll thead th{border-bottom:2px solid rgba(128,128,128,.6);white-space:normal;"
    "overflow-wrap:anywhere;min-width:4em;vertical-align:bottom}"
    ".gp-view .gp-scroll :is(th[scope=row],.gp-text){text-align:left;white-space:normal;"
    "overflow-wrap:anywhere;min-width:5em}"
    ".gp-view small{font-size:.88em;opacity:.8}"
    ".gp-view summary{cursor:pointer}"
    "</style>"
)


def text(value: object) -> str:
    """Any value as text of a page: names may hold whatever they like."""
    return html.escape(str(value))


def view(*parts: str) -> str:
    """Pieces of HTML as one block with the style of this module."""
    return f'{STYLE}<div class="gp-view">{"".join(parts)}</div>'


def paragraph(said: str, small: bool = False) -> str:
    """A paragraph of text, which is escaped."""
    inner = f"<small>{text(said)}</small>" if small else text(said)
    return f"<p>{inner}</p>"


def heading(name: str, *facts: str) -> str:
    """A name in bold and short facts behind it."""
    return f"<p><b>{text(name)}</b>{''.join(f' · {text(fact)}' for fact in facts if fact)}</p>"


def listing(sentences: Sequence[str], most: int = MOST_ROWS) -> str:
    """Sentences as a list; of many the first, and how many more there are."""
    if not sentences:
        return ""
    shown = [*sentences[:most], *([f"... and {len(sentences) - most} more"] if len(sentences) > most else [])]
    return f"<ul>{''.join(f'<li>{text(one)}</li>' for one in shown)}</ul>"


def lines(*parts: str) -> str:
    """A cell of several lines: the first as it is, the others small. Escaped."""
    first, *rest = [text(part) for part in parts]
    return "<br>".join([first] * bool(first) + [f"<small>{part}</small>" for part in rest if part])


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int = 1,
    words: Sequence[int] = (),
    more: str = "rows",
    most: int = MOST_ROWS,
    raw: bool = False,
) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        header: Names of columns.
        rows: Cells.
        names: How many of the first columns name the row.
        words: Further columns that hold text, which is set to the left and may wrap.
        more: What the rows that are cut off are called.
        most: Most rows that are shown.
        raw: Cells behind the names are HTML already (see :func:`lines`).
    """
    across = len(header)
    left = {*range(names), *words}
    head = "".join(f'<th scope="col"{_kind(i, left)}>{text(name)}</th>' for i, name in enumerate(header))
    body = "".join(f"<tr>{_row(row, names, set(words), raw)}</tr>" for row in rows[:most])
    if len(rows) > most:
        body += f'<tr><td class="gp-text" colspan="{across}">... and {len(rows) - most} more {text(more)}</td></tr>'
    return f'<div class="gp-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(title: str, inner: str) -> str:
    """Something that opens on a click; ``inner`` is HTML."""
    return f"<details><summary>{text(title)}</summary>{inner}</details>"


def _row(cells: Sequence[str], names: int, words: set[int], raw: bool) -> str:
    out = []
    for place, cell in enumerate(cells):
        if place < names:
            out.append(f'<th scope="row">{text(cell)}</th>')
        else:
            out.append(f"<td{_kind(place, words)}>{cell if raw else text(cell)}</td>")
    return "".join(out)


def _kind(place: int, words: set[int]) -> str:
    return ' class="gp-text"' if place in words else ""
