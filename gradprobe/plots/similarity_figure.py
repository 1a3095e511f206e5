"""The similarity figure: quality of every layer's direction against copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from gradprobe.core.errors import UsageError, unknown
from gradprobe.plots import _draw, _layout, register
from gradprobe.plots._choice import Choice, choose_estimators, choose_layers, shown_part
from gradprobe.plots._panels import Panel, layer_panels, model_panel
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, inches, paper
from gradprobe.store.levels import level_mask

REFERENCES = {"bp": "backprop", "smoothed": "the smoothed gradient"}
_OPTIONS = {"xscale": ("log", "linear"), "band": ("interval", "std"), "scale": ("raw", "unit-gain")}


@register(
    "similarity",
    summary="cosine with the reference against copies, one panel per layer and one for the model",
    report=True,
    options=["theory"],
)
def similarity(
    ds: xr.Dataset,
    *,
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    reference: str = "bp",
    scale: str = "raw",
    xscale: str = "log",
    level: float = 0.95,
    band: str = "interval",
    law: bool = True,
    theory: bool = False,
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw the cosine with the reference against Monte-Carlo copies, as in Fig. 5 of the ALR paper.

    One panel per layer in execution order, then the whole model; one colour and marker per method (open
    where the target is a surrogate). Line: mean over seeds. Shading: pointwise band over seeds. Thin dashes:
    the fitted alignment law. Strip at the right (infinitely many copies): the ceiling with its 95 % interval,
    only where it is resolved. Methods that are equal in a layer (a hybrid and its part) are striped. What is
    missing is named in the panel. Levels of noise are drawn by themselves, against ``smoothed``: where a run holds
    nothing else, or nothing else was named. All numbers come from :mod:`gradprobe.stats`.

    Source: Fig. 5 of arXiv 2403.12320v1; law, ceilings and the model's panel are additions.

    Args:
        ds: Results.
        estimators: Labels, in the order of the legend; all by default.
        layers: Names or globs; all by default. The model's panel stays that of everything probed.
        reference: A name along ``ds.reference``.
        scale: ``raw``, or ``unit-gain``: in the model's panel every layer is rescaled to unit gain.
        xscale: ``log`` or ``linear``.
        level: Level of the interval over seeds.
        band: ``interval`` (t interval of the mean) or ``std`` (the paper's shadow: scatter of one run).
        law: Draw the law and its ceilings; left out by itself where the run has a single block.
        theory: Draw what i.i.d. Gaussian directions in all weights of the layer (or model) reach by theory.
        model: Draw the model's panel.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure, not known to pyplot; Jupyter shows it. ``gradprobe_caption`` is a caption and
        ``gradprobe_record`` what goes into the JSON file.

    Raises:
        UsageError: A name or option is unknown, or there is nothing to draw.

    Example:
        >>> figure = gp.plots.similarity(ds, layers=["conv3", "fc"])
        >>> len(figure.axes)
        3
        >>> print(figure.gradprobe_caption.partition(" against")[0])
        Cosine similarity between estimated directions and backprop
    """
    given: dict[str, Any] = {"xscale": xscale, "band": band, "scale": scale}
    for kind, value in given.items():
        if value not in _OPTIONS[kind]:
            raise unknown(kind, value, _OPTIONS[kind])
    size = inches(width)
    ds, reference = shown_part(ds, reference, estimators, layers)
    choice = Choice(reference, scale, level, band, law, theory)
    labels, names = choose_estimators(ds, estimators), choose_layers(ds, layers)
    if theory and (wholes := [label for label in labels if _whole(ds, label)]):
        raise UsageError(
            f"a copy of {wholes[0]} is a whole estimate of many directions, so the line of theory does not compare "
            "with it; leave out theory=True, or that method."
        )
    panels = layer_panels(ds, labels, names, choice) + ([model_panel(ds, labels, choice)] if model else [])
    if not panels or not labels:
        raise UsageError("there is nothing to draw; choose at least one estimator, and a layer or the model.")
    figure = _draw_all(panels, choice, xscale, size)
    figure.gradprobe_caption = caption(ds, panels, choice)
    given |= {"estimators": labels, "layers": names, "reference": reference, "level": level, "law": law}
    given |= {"theory": theory, "model": model, "width": width}
    record = {"figure": "similarity", "caption": figure.gradprobe_caption, "arguments": given}
    return finish(figure, record | {"panels": [p.to_dict() for p in panels]} | made_from(ds), save)


def _whole(ds: xr.Dataset, label: str) -> bool:
    """Whether a copy of a method is a whole estimate; of runs of earlier versions that is not known."""
    return "whole" in ds.coords and bool(ds["whole"].sel(estimator=label).any())


def _draw_all(panels: list[Panel], choice: Choice, xscale: str, size: float) -> PaperFigure:
    room = _layout.room(len(panels), size)
    with paper(marks=min(1.0, 0.5 + 0.4 * room)):
        figure, axes = _layout.make_grid(len(panels), size)
        places = _draw.slots(panels, room)
        _layout.set_scales(axes, panels, xscale, space=(0.75 if places else 1.0) * room)
        texts = _layout.titles(panels, room)
        across = _layout.columns(len(panels), size)
        heads = []
        for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            _draw.draw_panel(axis, panel)
            _draw.draw_ceilings(axis, panel, places, labelled=index + across >= len(panels))
            heads.append(_draw.draw_title(axis, texts[index], panel, room))
        legend = _draw.draw_legend(figure, panels, _band(choice))
        _layout.set_height(figure, heads, legend, size)
        figure.supxlabel("Monte-Carlo copies $n$")
        label = f"Cosine similarity with {_named(choice.reference)}"
        figure.supylabel(_layout.axis_label(label, 0.75 * figure.get_figheight()))
    return figure


def _named(reference: str) -> str:
    return REFERENCES.get(reference, reference)


def _band(choice: Choice) -> str:
    return "± 1 std" if choice.band == "std" else f"{100 * choice.level:g} % interval"


def caption(ds: xr.Dataset, panels: list[Panel], choice: Choice) -> str:
    """What the figure shows, for which data, and what must not be read into it.

    Args:
        ds: Results.
        panels: What is shown.
        choice: Reference, scale and band.
    """
    seeds = ds.sizes["seed"]
    curves = [c for p in panels for c in p.curves]
    about = ds.attrs.get("problem", "")
    batch = f"this batch of {ds.attrs['batch_size']} samples" if "batch_size" in ds.attrs else "this batch"
    said = [
        f"Cosine similarity between estimated directions and {_named(choice.reference)} against Monte-Carlo "
        f"copies n of the batch{f' ({about})' if about else ''}, for each layer and the whole model; "
        f"blocks of {ds.attrs['block']} copies; the points of a curve are prefixes of one run."
    ]
    shade = "one standard deviation" if choice.band == "std" else f"{100 * choice.level:g} % t interval"
    if seeds > 1:
        said.append(
            f"Lines: mean over {seeds} seeds; shading: {shade}, pointwise, over {seeds} seeds, and for {batch} only."
        )
    else:
        said.append(f"One seed, so there is no band; for {batch} only.")
    if any(c.law for c in curves):
        said.append(
            "Dashed: the fitted alignment law; marks at infinity: its ceiling with 95 % interval, where resolved."
        )
    if choice.theory:
        said.append(
            "Grey line: the pooled cosine sqrt(n/(n + D + 1)) that n random Gaussian directions in all D weights of "
            "a panel reach, each with its exact slope; noise in one layer at a time has n directions in every layer."
        )
    surrogate = sorted({c.estimator for c in curves if c.open})
    if surrogate:
        said.append(
            f"Open markers ({', '.join(surrogate)}): the target is a surrogate. Sign-encoded methods carry no "
            "1/sigma, so their gain (length relative to the gradient) differs, and between layers too."
        )
    if any(p.over == "model" for p in panels):
        how = (
            "each layer rescaled to unit gain"
            if choice.scale == "unit-gain"
            else "layers with their own gains"
        )
        said.append(f"Whole model: sum over the probed layers, {how}.")
    if level_mask(ds).all():
        said.append(
            "These are levels of noise: the cosine of a single number is 1 or -1, and its mean over seeds says how "
            "often the sign is right."
        )
    return " ".join(said)
