"""Figures as inline SVG: text stays text, ink follows the page's colours, methods can be hidden by their class."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from gradprobe.plots._draw import TWIN
from gradprobe.plots._style import PLACE, PaperFigure

_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
_FONT = re.compile(r"font: (?:\w+ )??(\d+(?:\.\d+)?px)[^;]*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FRAME = re.compile(r"(matplotlib\.axis|patch)_\d+$")
"""Names of what makes the axes: ground and spines are patches without a name of their own."""

_NAME = re.compile(rf"(\w+).*?({TWIN}\d+)?{PLACE}(\d+)")
"""What a method's artists are called: kind, perhaps whose twin, place of the method."""

MEANT = {"#1a2440": "var(--smoothing,#1a2440)", "#a6cee3": "var(--noise,#a6cee3)"}
"""Colours of parts that a dark page has others for."""


def svg(figure: PaperFigure, key: str, label: str, colors: list[str]) -> Markup:
    """A figure as an SVG element of the page.

    Groups of a method get its class (``m0``, ``m1``, ...). Ids are unique in the page, and only there where
    something refers to them. Greys become the page's colours for ink, quiet ink, grid and ground, so that they
    follow a dark page; the methods' own colours become ``var(--c)`` in their groups.

    Args:
        figure: The figure.
        key: Beginning of all ids; unique in the page.
        label: What it shows, for those who do not see it.
        colors: Colour of each method.

    Returns:
        Markup without anything that is loaded from elsewhere.
    """
    return _finished(_tree(figure), key, label, colors)


def svgs(
    figures: Iterable[PaperFigure], keys: Sequence[str], labels: Sequence[str], colors: list[str]
) -> Iterator[Markup]:
    """Figures with one frame: the axes of the first are put behind what the others show; as :func:`svg`."""
    frame: list[ElementTree.Element] = []
    for figure, key, label in zip(figures, keys, labels, strict=False):
        root = _tree(figure)
        axes = next(e for e in root.iter() if e.attrib.get("id") == "axes_1")
        if frame:
            for place, part in enumerate(frame):
                axes.insert(place, copy.deepcopy(part))
        else:
            frame = [copy.deepcopy(e) for e in axes if _FRAME.match(e.attrib.get("id", ""))]
        yield _finished(root, key, label, colors)


def _tree(figure: PaperFigure) -> ElementTree.Element:
    stream = io.BytesIO()
    figure.savefig(
        stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style", "title"):
                parent.remove(child)
    return root


def _finished(root: ElementTree.Element, key: str, label: str, colors: list[str]) -> Markup:
    _rename(root, key)
    _restyle(root, colors, None)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label, "class": "figure"}
    for element in root.iter():
        element.tag = _local(element.tag)
        if _LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(_LINK)
        for text in ("text", "tail"):
            if not (getattr(element, text) or "").strip():
                setattr(element, text, None)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # the serialiser has escaped all text


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _rename(root: ElementTree.Element, key: str) -> None:
    """Make ids that something refers to unique in the page, and drop the others; keep what groups are as classes."""
    used = set(_references(root))
    new = {old: f"{key}-{i}" for i, old in enumerate(sorted(used))}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.attrib["id"] = new[old]
        elif old and (found := _NAME.fullmatch(old)):
            element.attrib["class"] = f"{found[1]}{found[2] or ''} m{found[3]}"
        if _LINK in element.attrib:
            element.attrib[_LINK] = "#" + new[element.attrib[_LINK][1:]]
        for name in ("style", "clip-path", "fill"):
            if "url(" in element.attrib.get(name, ""):
                element.attrib[name] = _REFERENCE.sub(lambda m: f"url(#{new[m[1]]})", element.attrib[name])


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        if _LINK in element.attrib:
            yield element.attrib[_LINK][1:]
        for value in element.attrib.values():
            yield from _REFERENCE.findall(value)


def _restyle(element: ElementTree.Element, colors: list[str], own: str | None) -> None:
    """Colours by meaning, two decimals for places, and the page's font."""
    if found := re.search(r"\bm(\d+)$", element.attrib.get("class", "")):
        own = colors[int(found[1])].lower()
    if "style" in element.attrib:
        style = _FONT.sub(r"font-size: \1", element.attrib["style"])
        style = _COLOR.sub(lambda m: _colour(m[0].lower(), own), style)
        element.attrib["style"] = style.replace(": ", ":").replace("; ", ";")
    if bare := _bare(element, own):
        element.attrib["style"] = ";".join(filter(None, [element.attrib.get("style"), f"fill:{bare}"]))
    for name in ("d", "x", "y", "points", "transform"):
        if name in element.attrib:
            text = _NUMBER.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), element.attrib[name])
            element.attrib[name] = " ".join(text.split())
    for child in element:
        _restyle(child, colors, own)


def _bare(element: ElementTree.Element, own: str | None) -> str | None:
    """What an element is filled with that matplotlib leaves without a colour because it is black."""
    if re.search(r"fill\s*:", element.attrib.get("style", "")):
        return None
    kind = _local(element.tag)
    if kind == "text":
        return "var(--ink,#262626)"
    return f"var(--c,{own})" if kind == "use" and own == "#000000" else None


def _colour(color: str, own: str | None) -> str:
    """A colour of the page for what is grey, the method's variable for its own colour; others stay."""
    if color == own:
        return f"var(--c,{color})"
    if color in MEANT:
        return MEANT[color]
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    if max(red, green, blue) - min(red, green, blue) > 8:
        return color
    names = ((80, "ink"), (190, "quiet"), (249, "grid"), (255, "ground"))
    return next(f"var(--{name},{color})" for most, name in names if red <= most)
