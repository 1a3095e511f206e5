"""Elements of HTML whose text and attributes are escaped, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

VOID = ("br", "hr", "input", "col")
"""Elements without an end."""


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        name: Of the element, such as ``"td"``.
        *children: What it holds: Markup as it is, everything else as text.
        **attributes: ``class_`` stands for ``class`` and ``data_value`` for ``data-value``; None leaves an attribute
            out, True writes its name alone.

    Returns:
        Markup.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")  # both are escaped


def joined(parts: Iterable[Any], between: str = "") -> Markup:
    """Parts behind each other: Markup as it is, everything else as text; None is left out."""
    return Markup(escape(between).join(escape(part) for part in parts if part is not None))


def sentences(said: Iterable[str], kind: str = "said") -> Markup:
    """A list of sentences."""
    return tag("ul", *(tag("li", sentence) for sentence in said), class_=kind)


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def name(text: Any) -> Markup:
    """A name in a table: in one line up to a width, broken anywhere beyond it."""
    return tag("span", text, class_="name")
