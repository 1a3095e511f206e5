"""Quality along training: what estimates are worth at each checkpoint, or at each size of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from gradprobe.core.errors import UsageError, described, one_of, whole
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import choose_estimators, choose_layers
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._stage_axes import EDGE, log_range, set_x_axis, step_of, value_range
from gradprobe.plots._stages import Asked, StagePanel, Stages, stage_panels
from gradprobe.plots._style import PaperFigure, inches, named, paper
from gradprobe.plots.similarity_figure import REFERENCES
from gradprobe.store.along import apart, common_copies, further, is_comparison, unlike_sizes

QUANTITIES = {
    "cosine": "Cosine with {reference} at n = {copies:,}",
    "ceiling": "Ceiling: cosine with {reference} at n = ∞",
    "half_copies": "Half-power copies",
    "price": "Price in copies",
}
AXES = {"checkpoint": "Checkpoint", "sigma": "Standard deviation $σ$ of the noise"}
BOUNDS = (0, (1.0, 1.2))
"""Dots: an interval of which only the ends are known."""


@register(
    "training", summary="quality at each checkpoint (or sigma), one panel per layer and one for the model"
)
def training(
    ds: xr.Dataset,
    quantity: str = "cosine",
    *,
    copies: int | None = None,
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    reference: str = "bp",
    scale: str = "raw",
    model: bool = True,
    xscale: str | None = None,
    xlabel: str | None = None,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw how good estimates are along training, or along sigma.

    One panel per layer in execution order, then the whole model; one colour and marker per method. Marks have their
    95 % intervals over seeds, for this batch, at each checkpoint; runs that share their noise differ seed by
    seed (``gp.concat``), which these intervals do not show. What is not resolved has no mark: dots go from one bound
    to the other, and the line is broken. Checkpoints that are numbers (epochs, steps) lie to scale.

    Args:
        ds: Runs side by side, as ``gp.concat`` gives them.
        quantity: ``cosine`` (default: measured, at ``copies``), ``ceiling``, ``half_copies`` or ``price`` (those of
            ``gp.stats.alignment``). Methods without noise have no price.
        copies: n of the cosine; default: the last that all methods have reached in all runs.
        estimators: Labels, in the order of the legend; all by default.
        layers: Names or globs; all by default. The model's panel stays that of everything probed.
        reference: A name along ``ds.reference``.
        scale: ``raw``, or ``unit-gain``: in the model's panel every layer is rescaled to unit gain.
        model: Draw the model's panel.
        xscale: ``linear`` or ``log``; by default ``log`` along sigma, else ``linear``.
        xlabel: What the axis is called, such as "epochs"; default "Checkpoint", or sigma.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: It is no comparison, a name or option is unknown, or there is nothing to draw.
    """
    if not is_comparison(ds):
        raise UsageError(
            f"training draws several runs side by side, as gp.concat([run, run, ...]) gives them, not "
            f"{'one run' if isinstance(ds, xr.Dataset) else described(ds)}."
        )
    one_of("quantity", quantity, tuple(QUANTITIES))
    one_of("scale", scale, ("raw", "unit-gain"))
    dim, size = further(ds), inches(width)
    names = choose_layers(ds.isel({dim: 0}, drop=True), layers)
    priced = quantity not in ("cosine", "ceiling")
    shown = [e for e in choose_estimators(ds, estimators) if _noisy(ds, e) or not priced]
    if not shown or not (names or model):
        raise UsageError("there is nothing to draw; choose at least one estimator, and a layer or the model.")
    along = _scale_of(ds, dim, xscale)
    n = common_copies(ds) if copies is None else whole("copies", copies)
    asked = Asked(quantity, n, reference, scale)
    panels = stage_panels(ds, shown, names, asked, model)
    figure = _draw_all(panels, asked, along, AXES[dim] if xlabel is None else str(xlabel), size)
    figure.gradprobe_caption = _caption(ds, panels, asked, dim)
    given: dict[str, Any] = {"quantity": quantity, "copies": n, "estimators": shown, "layers": names}
    given |= {"reference": reference, "scale": scale, "model": model, "xscale": along, "xlabel": xlabel}
    record: dict[str, Any] = {
        "figure": "training",
        "caption": figure.gradprobe_caption,
        "arguments": given | {"width": width},
    }
    runs = [{dim: label} | _about(run) for label, run in apart(ds)]
    versions = made_from(xr.Dataset())["versions"]
    record |= {"panels": [p.to_dict() for p in panels], "runs": runs, "versions": versions}
    return finish(figure, record, save)


def _about(run: xr.Dataset) -> dict[str, Any]:
    """What made one run; checkpoints by the names of their files, not where they happened to lie."""
    known = made_from(run)["run"]
    asked = dict(known.get("configuration") or {})
    place = str(asked.get("checkpoint") or "")
    if place and Path(place).name != place:
        asked["checkpoint"] = Path(place).name
        known["problem"] = str(known.get("problem", "")).replace(place, Path(place).name)
    return known | ({"configuration": asked} if asked else {})


def _noisy(ds: xr.Dataset, label: str) -> bool:
    return bool(ds["stochastic"].sel(estimator=label))


def _scale_of(ds: xr.Dataset, dim: str, xscale: str | None) -> str:
    """Scale of the axis: ``linear``, ``log`` or ``names``.

    Raises:
        UsageError: A logarithmic one is not possible.
    """
    numbers = ds[dim].values
    if xscale is not None:
        one_of("xscale", xscale, ("linear", "log"))
    if numbers.dtype.kind not in "iuf":
        if xscale == "log":
            raise UsageError(
                "xscale='log' needs checkpoints that are numbers; give labels=[...] to gp.concat."
            )
        return "names"
    if xscale == "log" and numbers.min() <= 0:
        raise UsageError(f"xscale='log' needs positive numbers, and {dim} {numbers.min():g} is there.")
    return xscale or ("log" if dim == "sigma" else "linear")


def _draw_all(panels: list[StagePanel], asked: Asked, along: str, xlabel: str, size: float) -> PaperFigure:
    room = _layout.room(len(panels), size)
    logarithmic = asked.quantity in ("half_copies", "price")
    with paper(marks=min(1.0, 0.5 + 0.4 * room)):
        figure, axes = _layout.make_grid(len(panels), size)
        texts = _layout.titles(list(panels), room)
        bottom, top = log_range(panels) if logarithmic else value_range(panels)
        step = step_of(panels[0].stages, along, room)
        heads, below = [], 0.0
        for axis, panel, text in zip(axes, panels, texts, strict=True):
            axis.set(yscale="log" if logarithmic else "linear", ylim=(bottom, top))
            below = set_x_axis(axis, panel.stages[0], along, room, 0.5 * step * len(panel.stages) + EDGE)
            for place, stages in enumerate(panel.stages):
                aside = step * (place - (len(panel.stages) - 1) / 2)
                _draw_stages(axis, stages, aside, (bottom, top))
            heads.append(
                _draw.put_title(axis, text, [(s.note, s.estimator) for s in panel.stages if s.note], room)
            )
        legend = _legend(figure, panels)
        _layout.set_height(figure, heads, legend, size)
        figure.set_figheight(figure.get_figheight() + below)
        figure.supxlabel(xlabel)
        label = QUANTITIES[asked.quantity].format(
            reference=REFERENCES.get(asked.reference, asked.reference), copies=asked.copies
        )
        figure.supylabel(_layout.axis_label(label, 0.75 * figure.get_figheight()))
    return figure


def _draw_stages(axis: Axes, stages: Stages, aside: float, shown: tuple[float, float]) -> None:
    """Marks with intervals, ``aside`` points beside their place; dots where there are bounds alone."""
    figure: Any = axis.figure
    moved: Transform = axis.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
    known = np.isfinite(stages.mean)
    low, high = (
        np.clip(np.nan_to_num(v, nan=np.nan, posinf=shown[1], neginf=shown[0]), *shown)
        for v in (stages.low, stages.high)
    )
    common: dict[str, Any] = {"color": stages.color, "transform": moved}
    order = np.argsort(stages.copies, kind="stable")
    look = _draw.marker(stages)
    if stages.flat:
        look = {"marker": "_", "markersize": 5}
    axis.plot(
        stages.copies[order],
        stages.mean[order],
        linewidth=0.8,
        zorder=3,
        gid=named("value", stages.place),
        **common,
        **look,
    )
    for chosen, style, gid in ((known, "-", "interval"), (~known, BOUNDS, "bounds")):
        there = chosen & np.isfinite(low + high)
        if there.any() and not stages.flat:
            x = stages.copies[there]
            axis.vlines(
                x,
                low[there],
                high[there],
                linewidth=0.8,
                linestyle=style,
                zorder=2,
                gid=named(gid, stages.place),
                **common,
            )


def _legend(figure: PaperFigure, panels: list[StagePanel]) -> Legend:
    grey, stages = "0.35", [s for p in panels for s in p.stages]
    handles = [_draw.entry(s) for s in panels[0].stages]
    if any((np.isfinite(s.mean) & np.isfinite(s.low)).any() and not s.flat for s in stages):
        handles.append(
            Line2D(
                [], [], color=grey, linewidth=0.8, marker="|", markersize=6, ls="none", label="95 % interval"
            )
        )
    if any((~np.isfinite(s.mean) & np.isfinite(s.low)).any() for s in stages):
        handles.append(
            Line2D([], [], color=grey, linewidth=0.8, linestyle=BOUNDS, label="not resolved: bounds")
        )
    return _draw.place_legend(figure, handles)


def _caption(ds: xr.Dataset, panels: list[StagePanel], asked: Asked, dim: str) -> str:
    what = {
        "cosine": f"Cosine similarity with {{}} after n = {asked.copies:,} copies, mean over seeds",
        "ceiling": "Ceiling of the cosine with {}, which no number of copies passes",
        "half_copies": "Half-power copies (1/cos² is twice its limit against {})",
        "price": "Price: copies over (1/cos² - 1/ceiling²), against {}",
    }[asked.quantity].format(REFERENCES.get(asked.reference, asked.reference))
    about, many = ds.attrs.get("problem", ""), ds.sizes[dim]
    places = (
        f"{many} checkpoint{'s' * (many > 1)}"
        if dim == "checkpoint"
        else f"{many} value{'s' * (many > 1)} of sigma"
    )
    said = [f"{what}, at {places}{f' ({about})' if about else ''}, by layer and for the whole model."]
    said.append("Bars: 95 % intervals over seeds, pointwise, for this batch only (cut at the panel's edge).")
    if asked.quantity != "cosine":
        said += unlike_sizes(ds)
    stages = [s for p in panels for s in p.stages]
    if any((~np.isfinite(s.mean) & np.isfinite(s.low)).any() for s in stages):
        said.append("Dots without a mark: not resolved, only bounds are known.")
    if any(p.over == "model" for p in panels):
        how = "each rescaled to unit gain" if asked.scale == "unit-gain" else "with their own gains"
        said.append(f"Whole model: sum over the probed layers, {how}.")
    return " ".join(said)
