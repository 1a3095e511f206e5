"""One style for all figures: sizes of a paper, colours from the data, nothing left behind in matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.style
import seaborn as sns
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from gradprobe.core.errors import UsageError, unknown

WIDTHS = {"single": 3.4, "double": 7.0}
"""Widths of a column and of a page of a two-column paper, in inches."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
TITLE_SIZE = 7.0
LABEL_SIZE = 7.5
LETTER = 0.58
"""Mean width of a letter relative to the size of the font."""
NOTE_SIZE = 6.0
"""Sizes of titles, axis labels and notes, in points."""

SHOWN_DPI = 120
"""Dots of a page to an inch of a figure in notebooks: a page's width of seven inches fits a notebook's column."""

_OWN = {
    # a family that ships with matplotlib, by name: generic ones are looked up at drawing time
    "font.family": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "text.usetex": False,
    "font.size": 7.0,
    "axes.labelsize": LABEL_SIZE,
    "axes.titlesize": TITLE_SIZE,
    "axes.titlepad": 3.0,
    "axes.titlelocation": "left",
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7.0,
    "figure.labelsize": LABEL_SIZE,
    "axes.linewidth": 0.6,
    "patch.force_edgecolor": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "gradprobe",  # the same figure gives the same bytes
    "savefig.facecolor": "white",
    "savefig.bbox": None,  # the size of the page is the size that was asked for
    "axes.unicode_minus": True,
}


def literal(name: str) -> str:
    """A name as text that matplotlib draws as it is: no formula, and no character that SVG cannot hold."""
    return _CONTROL.sub(" ", name).replace("$", r"\$")


@contextmanager
def paper(marks: float = 1.0) -> Iterator[None]:
    """The style while the block runs; every ``rcParams`` entry is as before afterwards.

    Args:
        marks: Size of lines and markers, relative to that in panels of ordinary size.
    """
    style: dict[str, Any] = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **_OWN}
    style |= {"lines.linewidth": 1.1 * marks, "lines.markersize": 3.4 * marks}
    with matplotlib.style.context(["default", style]):
        yield


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

PLACE = " m"
"""What stands in the name of an artist between what it is and the place of its method in the run."""


def named(kind: str, place: int) -> str:
    """Group id of an artist that belongs to a method; pages hide and colour methods by it."""
    return f"{kind}{PLACE}{place}"


class PaperFigure(Figure):
    """A figure outside pyplot's registry that draws, saves and shows itself in the style of a paper.

    matplotlib reads part of a style only when it draws (ticks, fonts), so the style belongs to drawing.

    Attributes:
        gradprobe_caption: Text that says what is shown and what it is not.
        gradprobe_record: What made the figure, JSON-able after ``_save.plain``.
    """

    gradprobe_caption: str = ""
    gradprobe_record: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gradprobe_record = {}

    def draw(self, renderer: RendererBase) -> None:
        """Draw in the style, whatever the caller's settings are."""
        with paper():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Save in the style; arguments as matplotlib's."""
        with paper():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> bytes:
        """The picture as notebooks get it, with twice the dots of the size at which it is shown."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=2 * SHOWN_DPI)
        return stream.getvalue()

    def shown_size(self) -> dict[str, int]:
        """Width and height at which a notebook shows it, in dots of the page."""
        wide, high = (round(SHOWN_DPI * size) for size in self.get_size_inches())
        return {"width": wide, "height": high}


def inches(width: str | float) -> float:
    """Width of a figure: ``single``, ``double``, or a number of inches.

    Raises:
        UsageError: It is neither, or less than two inches.
    """
    if isinstance(width, str):
        if width not in WIDTHS:
            raise unknown("width", width, WIDTHS)
        return WIDTHS[width]
    if not 2 <= width <= 100:
        raise UsageError(f"width={width!r} does not fit a figure; give inches, at least 2, or 'double'.")
    return float(width)


def despine(axes: Any) -> None:
    """Take the upper and right frame away."""
    sns.despine(ax=axes)
