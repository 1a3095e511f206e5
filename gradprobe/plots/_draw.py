"""Marks of the similarity figure: curves, bands, laws, ceilings and notes of one panel; the legend."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Affine2D, ScaledTranslation, Transform, blended_transform_factory

from gradprobe.plots._panels import Curve, Panel
from gradprobe.plots._style import LETTER, MARKERS, NOTE_SIZE, TITLE_SIZE, literal, named

BAND_ALPHA = 0.16
LAW_DASHES = (0, (2.6, 1.4))
TWIN = " t"
"""What stands in the name of an artist before the place of the method whose curve is the same."""
THEORY: dict[str, Any] = {"color": "0.55", "linewidth": 0.8}
"""Look of the line that theory gives for random directions."""
STRIP_GAP = 3.0
"""Points between a panel and its strip of ceilings."""
_STRIPES = ((4, 4), (2, 6), (1, 7))


def marker(curve: Curve) -> dict[str, Any]:
    """The second cue beside colour: a shape, filled, or open for methods whose target is a surrogate."""
    if curve.flat:
        return {"marker": "none"}
    face = "white" if curve.open else curve.color
    shape = MARKERS[curve.rank % len(MARKERS)]
    return {"marker": shape, "markerfacecolor": face, "markeredgecolor": curve.color, "markeredgewidth": 0.8}


def draw_panel(axes: Axes, panel: Panel, spare: bool = False) -> None:
    """All curves of a panel.

    Args:
        axes: The panel on paper.
        panel: What it shows.
        spare: Draw band and law also of a curve that equals another: pages show them once the other is hidden.
    """
    count = len(panel.curves)
    if panel.theory:
        axes.plot(panel.theory["copies"], panel.theory["cosine"], zorder=1.9, gid="theory", **THEORY)
    for place, curve in enumerate(panel.curves):
        twins = [c for c in panel.curves[:place] if np.array_equal(curve.mean, c.mean, equal_nan=True)]
        if not np.isfinite(curve.mean).any():
            continue
        order = 2.0 + place / count / 2
        _draw_mean(axes, curve, len(twins), place / count)
        if not twins:
            _draw_rest(axes, curve, order, "")
        elif spare:
            _draw_rest(axes, curve, order, f"{TWIN}{twins[0].place}")


def _draw_mean(axes: Axes, curve: Curve, twins: int, phase: float) -> None:
    """One curve; one that equals ``twins`` earlier ones is striped, so that all of them are seen."""
    style: Any = (0, _STRIPES[min(twins, 3) - 1]) if twins else "-"
    few = np.isfinite(curve.mean).sum() < 5
    axes.plot(
        curve.copies,
        curve.mean,
        color=curve.color,
        linestyle=style,
        linewidth=0.8 if curve.flat else None,
        dash_capstyle="butt",
        markevery=None if few else (0.02 + 0.24 * phase, 0.24),
        zorder=2.0 + phase / 2,
        label=curve.estimator,
        gid=named("mean", curve.place),
        **marker(curve),
    )


def _draw_rest(axes: Axes, curve: Curve, order: float, twin: str) -> None:
    """Band and law; ``twin`` goes into their names."""
    if np.isfinite(curve.low).any() and not curve.flat:
        _draw_band(axes, curve, order, named(f"band{twin}", curve.place))
    if curve.law:
        axes.plot(
            curve.law["copies"],
            curve.law["cosine"],
            color=darker(curve.color),
            linestyle=LAW_DASHES,
            linewidth=0.7,
            zorder=order + 1,
            label=f"_law of {curve.estimator}",
            gid=named(f"law{twin}", curve.place),
        )


def _draw_band(axes: Axes, curve: Curve, order: float, gid: str) -> None:
    if np.isfinite(curve.low).sum() == 1:  # an area needs two points
        axes.vlines(curve.copies, curve.low, curve.high, color=curve.color, alpha=0.5, linewidth=0.8, gid=gid)
        return
    axes.fill_between(
        curve.copies,
        curve.low,
        curve.high,
        color=curve.color,
        alpha=BAND_ALPHA,
        linewidth=0,
        zorder=order - 1,
        gid=gid,
    )


def darker(color: str) -> tuple[float, float, float]:
    """The colour of a law: recognisably its method's, and visible on its line."""
    red, green, blue = matplotlib.colors.to_rgb(color)
    return (0.5 * red, 0.5 * green, 0.5 * blue)


def slots(panels: list[Panel], room: float) -> dict[str, float]:
    """Place of each method in the strips of ceilings, in points right of the panel; empty without ceilings.

    Args:
        panels: What is shown.
        room: Width of one panel in inches, with its strip.
    """
    seen = {c.estimator for p in panels for c in p.curves if c.resolved}
    if not seen:
        return {}
    names = [c.estimator for c in panels[0].curves if c.estimator in seen]
    step = min(max(4.2, 14 / len(names)), 0.2 * 72 * room / len(names))
    return {name: STRIP_GAP + step * (i + 0.6) for i, name in enumerate(names)}


def draw_ceilings(axes: Axes, panel: Panel, places: dict[str, float], labelled: bool) -> None:
    """The strip right of a panel: ceiling and interval of each method where they are resolved."""
    if not places:
        return
    points = _points_right_of(axes)
    for curve in panel.curves:
        if curve.resolved:
            _draw_ceiling(
                axes, curve, places[curve.estimator], blended_transform_factory(points, axes.transData)
            )
    end = max(places.values()) + STRIP_GAP
    edge = axes.spines["bottom"]
    look: dict[str, Any] = {
        "color": edge.get_edgecolor(),
        "linewidth": edge.get_linewidth(),
        "clip_on": False,
    }
    axes.add_artist(Line2D([STRIP_GAP, end], [0, 0], transform=points, gid="strip", **look))
    if labelled:
        axes.text((STRIP_GAP + end) / 2, -4, "$\\infty$", transform=points, ha="center", va="top")


def _draw_ceiling(axes: Axes, curve: Curve, place: float, where: Transform) -> None:
    """Values are clipped to [-1, 1]: what lies beyond is noise."""
    value, low, high = (float(np.clip(curve.ceiling[k], -1, 1)) for k in ("value", "low", "high"))
    size = matplotlib.rcParams["lines.markersize"]
    common: dict[str, Any] = {"transform": where, "clip_on": False, "color": curve.color}
    axes.add_artist(
        Line2D([place] * 2, [low, high], linewidth=0.6, gid=named("interval", curve.place), **common)
    )
    axes.add_artist(
        Line2D(
            [place],
            [value],
            ls="none",
            ms=0.85 * size,
            gid=named("ceiling", curve.place),
            **common,
            **marker(curve),
        )
    )


def _points_right_of(axes: Axes) -> Transform:
    """Coordinates in points from the lower right corner of a panel."""
    figure: Any = axes.figure
    panel: Any = axes.transAxes
    corner = ScaledTranslation(1, 0, panel)
    return Affine2D().scale(1 / 72) + figure.dpi_scale_trans + corner


def draw_title(axes: Axes, title: str, panel: Panel, room: float) -> float:
    """The title, and under it what is missing: one line for each reason, where no curve can be.

    Args:
        axes: The panel on paper.
        title: Its title.
        panel: What it shows.
        room: Width in inches.

    Returns:
        Height of both, in inches.
    """
    return put_title(axes, title, [(c.note, c.estimator) for c in panel.curves if c.note], room)


def put_title(axes: Axes, title: str, notes: list[tuple[str, str]], room: float) -> float:
    """A title over notes (what is missing, of which method); as :func:`draw_title`."""
    said: dict[str, list[str]] = {}
    for note, estimator in notes:
        said.setdefault(note, []).append(literal(estimator))
    letters = max(int(room * 72 / (LETTER * NOTE_SIZE)), 12)
    lines = [x for note, names in said.items() for x in textwrap.wrap(f"{', '.join(names)}: {note}", letters)]
    if lines:
        axes.annotate(
            "\n".join(lines),
            (0, 1),
            xytext=(0, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            va="bottom",
            fontsize=NOTE_SIZE,
            linespacing=1.1,
            gid="note",
        )
    pad = 3 + (1 + 1.1 * NOTE_SIZE * len(lines) if lines else 0)
    axes.set_title(title, pad=pad)
    return (pad + 1.25 * TITLE_SIZE * (title.count("\n") + 1)) / 72


def draw_legend(figure: Figure, panels: list[Panel], band: str) -> Legend:
    """One legend above the panels: the methods, then what bands, dashes and marks mean."""
    curves = [c for p in panels for c in p.curves]
    handles = [entry(c) for c in panels[0].curves]
    grey = "0.35"
    if any(np.isfinite(c.low).any() and not c.flat for c in curves):
        handles.append(Patch(facecolor=grey, alpha=2 * BAND_ALPHA, linewidth=0, label=band))
    if any(c.law for c in curves):
        handles.append(Line2D([], [], color=grey, linestyle=LAW_DASHES, linewidth=0.7, label="fitted law"))
    if any(p.theory for p in panels):
        handles.append(Line2D([], [], label="random directions, theory", **THEORY))
    if any(c.resolved for c in curves):
        handles.append(Line2D([], [], color=grey, marker="|", markersize=6, ls="none", label="ceiling"))
    return place_legend(figure, handles)


def entry(curve: Curve) -> Any:
    """A method's entry of a legend."""
    look: dict[str, Any] = {"color": curve.color, "linewidth": 0.8 if curve.flat else None} | marker(curve)
    return Line2D([], [], label=literal(curve.estimator), gid=named("key", curve.place), **look)


def place_legend(figure: Figure, handles: list[Any], place: str = "upper") -> Legend:
    """A legend above (or below, ``lower``) all panels, in as few rows as fit, filled row by row."""
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # not public
    where: Any = f"outside {place} center"
    for rows in range(1, len(handles) + 1):
        columns = math.ceil(len(handles) / rows)
        legend = figure.legend(
            handles=[h for start in range(columns) for h in handles[start::columns]],
            loc=where,
            ncols=columns,
            frameon=False,
            handlelength=2.0,
            columnspacing=1.4,
            handletextpad=0.5,
            borderaxespad=0.2,
        )
        if columns == 1 or legend.get_window_extent(renderer).width < 0.98 * figure.bbox.width:
            break
        legend.remove()
    for drawn, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        gid = next((h.get_gid() for h in handles if h.get_label() == text.get_text()), None)
        if drawn is not None and gid is not None:  # a method's entry belongs to it as its curve does
            drawn.set_gid(gid)
            text.set_gid(gid)
    return legend
