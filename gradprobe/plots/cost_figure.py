"""The cost figure: what quality costs, and with which method it is cheapest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

from gradprobe import stats
from gradprobe.core.errors import UsageError, unknown
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import Choice, choose_estimators, choose_layers
from gradprobe.plots._cost_panels import Priced, cost_panels
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, inches, named, paper
from gradprobe.plots.similarity_figure import REFERENCES

AXES = {
    "equivalents": "Cost in full-forward equivalents",
    "forwards": "Forward passes of the batch",
    "seconds": "Seconds on the run's machine",
    "copies": "Monte-Carlo copies $n$",
}
_SAID = {
    "equivalents": "multiply-adds that depend on the noise, in forward passes of the whole network",
    "forwards": "forward passes",
    "seconds": "seconds of this run on its machine",
    "copies": "copies",
}
_SCALES = ("raw", "unit-gain")
HALO: dict[bool, dict[str, Any]] = {
    True: {"linestyle": "-", "alpha": 0.42},
    False: {"linestyle": (0, (0.5, 0.5)), "alpha": 0.32},
}
"""The frontier where the leader is resolved, and where it is not."""
WIDE = 4.5
"""Width of the frontier in points."""
TICKS = 0.13
"""Inches of each row for tick labels."""


@register(
    "cost", summary="cosine with the reference against cost, with the law beyond the run and the best method"
)
def cost(
    ds: xr.Dataset,
    *,
    against: str = "equivalents",
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    reference: str = "bp",
    scale: str = "raw",
    level: float = 0.95,
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw the cosine with the reference against what it costs.

    One panel per layer in execution order, then the whole model, each with its own range of costs: from one block of
    the cheapest method to ten times the run of the dearest. Line: measured, mean over seeds, with its pointwise
    interval. Dashes: the fitted alignment law beyond the run, cut at 1. Wide band: the frontier, in the colour of
    the method that leads by its law; striped where its interval overlaps another's. A method without noise is a line
    from the cost of its one evaluation on. All numbers come from ``stats.cost`` and ``stats.frontier``, which say
    what is counted.

    Args:
        ds: Results.
        against: ``equivalents`` (default), ``seconds``, ``copies`` or ``forwards``.
        estimators: Labels, in the order of the legend; all by default. Only these compete.
        layers: Names or globs; all by default. The model's panel stays that of everything probed.
        reference: A name along ``ds.reference``.
        scale: ``raw``, or ``unit-gain``: in the model's panel every layer is rescaled to unit gain.
        level: Level of the interval over seeds.
        model: Draw the model's panel.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: A name or option is unknown, or there is nothing to draw.
    """
    for kind, value, known in (("against", against, tuple(AXES)), ("scale", scale, _SCALES)):
        if value not in known:
            raise unknown(kind, value, known)
    size = inches(width)
    choice = Choice(reference, scale, level, "interval", law=False)
    labels, names = choose_estimators(ds, estimators), choose_layers(ds, layers)
    if not labels or not (names or model):
        raise UsageError("there is nothing to draw; choose at least one estimator, and a layer or the model.")
    panels = cost_panels(ds, labels, names, choice, against, model)
    figure = _draw_all(panels, choice, against, size)
    figure.gradprobe_caption = _caption(ds, panels, choice, against)
    given: dict[str, Any] = {
        "against": against,
        "estimators": labels,
        "layers": names,
        "reference": reference,
    }
    given |= {"scale": scale, "level": level, "model": model, "width": width}
    record = {"figure": "cost", "caption": figure.gradprobe_caption, "arguments": given}
    return finish(figure, record | {"panels": [p.to_dict() for p in panels]} | made_from(ds), save)


def _draw_all(panels: list[Priced], choice: Choice, against: str, size: float) -> PaperFigure:
    count = len(panels)
    room = _layout.room(count, size)
    with paper(marks=min(1.0, 0.5 + 0.4 * room)):
        figure, axes = _layout.make_grid(count, size)
        texts = _layout.titles([p.panel for p in panels], room)
        ends = _heights(panels)
        heads = []
        for axis, priced, text in zip(axes, panels, texts, strict=True):
            _scale(axis, priced, ends, room)
            _draw_frontier(axis, priced)
            _draw.draw_panel(axis, priced.panel)
            heads.append(_draw.draw_title(axis, text, priced.panel, room) + TICKS)
        legend = _legend(figure, panels, choice)
        _layout.set_height(figure, heads, legend, size)
        figure.supxlabel(AXES[against])
        label = f"Cosine similarity with {REFERENCES.get(choice.reference, choice.reference)}"
        figure.supylabel(_layout.axis_label(label, 0.75 * figure.get_figheight()))
    return figure


def _heights(panels: list[Priced]) -> tuple[float, float]:
    """The same cosines for all panels: up to 1, or less if all are small, and from 0 or below if need be."""
    curves = [c for p in panels for c in p.panel.curves]
    shown = np.concatenate([x for c in curves for x in (c.mean, c.law.get("cosine", c.mean[:0]))])
    shown = shown[np.isfinite(shown)]
    top = float(np.clip(shown.max(initial=0.05), 0.05, 1.0))
    top = 1.04 * (1.0 if top > 0.5 else top)
    bottom = max(float(shown.min(initial=0.0)), -0.25 * top)
    return bottom - 0.03 * top, top


def _scale(axis: Axes, priced: Priced, ends: tuple[float, float], room: float) -> None:
    low, high = priced.span
    axis.set_ylim(*ends)
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_xscale("log")
    axis.set_xlim(low / 1.12, high * 1.12)
    axis.xaxis.set_major_locator(LogLocator(numticks=max(3, int(3.2 * room) + 1)))
    axis.xaxis.set_minor_locator(LogLocator(subs=(), numticks=20))
    axis.xaxis.set_major_formatter(LogFormatterSciNotation())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelbottom=True)


def _draw_frontier(axis: Axes, priced: Priced) -> None:
    for lead in priced.leads:
        axis.plot(
            lead.costs,
            lead.cosine,
            color=lead.color,
            linewidth=WIDE,
            solid_capstyle="butt",
            dash_capstyle="butt",
            zorder=1.5,
            gid=named("frontier" if lead.resolved else "frontier, unresolved", lead.place),
            **HALO[lead.resolved],
        )


def _legend(figure: PaperFigure, panels: list[Priced], choice: Choice) -> Legend:
    curves = [c for p in panels for c in p.panel.curves]
    grey = "0.35"
    handles = [_draw.entry(c) for c in panels[0].panel.curves]
    if any(np.isfinite(c.low).any() and not c.flat for c in curves):
        alpha = 2 * _draw.BAND_ALPHA
        handles.append(
            Patch(facecolor=grey, alpha=alpha, linewidth=0, label=f"{100 * choice.level:g} % interval")
        )
    if any(c.law for c in curves):
        dashes: Any = _draw.LAW_DASHES
        handles.append(
            Line2D([], [], color=grey, linestyle=dashes, linewidth=0.7, label="law beyond the run")
        )
    for resolved, label in ((True, "best, resolved"), (False, "best, not resolved")):
        if any(lead.resolved is resolved for p in panels for lead in p.leads):
            caps: dict[str, Any] = {"solid_capstyle": "butt", "dash_capstyle": "butt"}
            handles.append(
                Line2D([], [], color="black", linewidth=WIDE, label=label, **caps, **HALO[resolved])
            )
    return _draw.place_legend(figure, handles)


def _caption(ds: xr.Dataset, panels: list[Priced], choice: Choice, against: str) -> str:
    seeds = ds.sizes["seed"]
    named = REFERENCES.get(choice.reference, choice.reference)
    about = ds.attrs.get("problem", "")
    batch = f"this batch of {ds.attrs['batch_size']} samples" if "batch_size" in ds.attrs else "this batch"
    said = [
        f"Cosine similarity between estimated directions and {named} against cost ({_SAID[against]})"
        f"{f' ({about})' if about else ''}, for each layer and the whole model; panels differ in the costs shown."
    ]
    band = (
        f"shading: {100 * choice.level:g} % t interval, pointwise, over {seeds} seeds"
        if seeds > 1
        else "one seed"
    )
    said.append(f"Lines: measured, mean over seeds; {band}; for {batch} only.")
    if any(p.leads for p in panels):
        said.append(
            "Dashed: the fitted alignment law beyond the run. Wide: the method whose law is highest at that cost; "
            "striped where its interval overlaps another's, so that the lead may be noise; backprop does not compete."
        )
    layers = [p.panel for p in panels if p.panel.over == "layer"]
    prices = stats.cost(ds)
    shared = prices["shared"] & prices["stochastic"]
    drawn = [shared.sel(estimator=c.estimator, layer=p.name) for p in layers for c in p.curves]
    if against != "copies" and any(map(bool, drawn)):
        said.append(
            "Where one unit serves all layers (joint injection), each layer's panel has the cost of all."
        )
    if any(p.panel.over == "model" for p in panels):
        said.append("Whole model: equally many copies in every layer, each at its own cost.")
    return " ".join(said)
