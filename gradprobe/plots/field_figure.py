"""Where descending the mean of each estimator goes, and where it comes to rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradprobe.plots import register
from gradprobe.plots._maps import across, add_legend, make_maps, name_maps
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, inches, paper
from gradprobe.plots._surface import draw_surface, frame, two_variables
from gradprobe.plots._walkers import diverged, last, within_reach
from gradprobe.store.paths import GRADIENT, check_kind, matched_fields, with_starts

ARROWS = 15
"""Arrows along each axis, about; fewer where maps are small."""
_SHORTEST = 0.4
_DECADES = 3.0
"""Arrows shorten over so many decades below the longest vector, to that part of the longest arrow."""
_ZERO: dict[str, Any] = {"ls": "none", "marker": "o", "markersize": 4.2, "markeredgewidth": 0.9}
_ZEROS: dict[str, dict[str, Any]] = {
    "stable": _ZERO | {"color": "black", "markeredgecolor": "white"},
    "unstable": _ZERO | {"markerfacecolor": "white", "markeredgecolor": "black"},
    "edge": _ZERO | {"marker": "s", "color": "black", "markeredgecolor": "white", "clip_on": False},
}
_END: dict[str, Any] = {
    "ls": "none",
    "marker": "o",
    "markersize": 2.0,
    "markeredgewidth": 0,
    "markerfacecolor": "#CC3311",  # seen on the black of zeros, on white, and in grey
}
_SHIFT: dict[str, Any] = {"ls": "none", "marker": "+", "markersize": 7, "markeredgewidth": 0.9}


@register(
    "fields", summary="mean directions of estimators over a plane, their zeros, and where walkers ended"
)
def fields(
    field: xr.Dataset,
    path: xr.Dataset | None = None,
    *,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw where descending each field goes: one panel for the gradient, then one for each estimator.

    Arrows are minus the mean direction, with lengths on a log scale. Filled circles: zeros where a descent
    stays; open ones: where it does not. Crosses repeat the gradient's zeros, so that a shift is seen.

    Args:
        field: Result of ``gp.field``.
        path: Result of ``gp.descend`` on the same function: the last positions of its walkers are drawn as dots
            in the panels of the same labels.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json.

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: It is no field, or the path is none, or one of another function or other estimators.
    """
    check_kind(field, "field")
    two_variables(field, "a map of fields")
    ends = {} if path is None else _ends(field, path)
    figure, contours = _draw(field, ends, inches(width))
    figure.gradprobe_caption = " ".join(_caption(field, path, ends, contours))
    arguments = {"width": width, "path": path is not None}
    record = {"figure": "fields", "caption": figure.gradprobe_caption, "arguments": arguments}
    record |= {"fields": _numbers(field, ends)} | made_from(field)
    return finish(figure, record, save)


def labels(field: xr.Dataset) -> list[str]:
    """Names of the fields, the gradient's first."""
    found = [str(f) for f in field["field"].values]
    return sorted(found, key=lambda f: f != GRADIENT)


def _ends(field: xr.Dataset, path: Any) -> dict[str, np.ndarray]:
    """Last positions of the walkers of each estimator that has a panel.

    Raises:
        UsageError: There is nothing that belongs together.
    """
    shared = matched_fields(path, field)
    wide = with_starts(path)
    known = [str(e) for e in wide["estimator"].values]
    order = ("estimator", "start", "seed", "step", "coordinate")
    positions = within_reach(wide["position"].transpose(*order).values, frame(field))
    gone = np.isfinite(wide["diverged"].transpose(*order[:3]).values)
    rows = {panel: known.index(e) for e, panel in shared.items()}
    return {panel: last(positions[row])[~gone[row]] for panel, row in rows.items()}


def kinds_of(field: xr.Dataset) -> dict[str, str]:
    """Each field's ``how``: exact, integrated, "integrated, not converged" or sampled."""
    return {label: str(field["how"].sel(field=label).values) for label in labels(field)}


def unsought(field: xr.Dataset) -> list[str]:
    """Fields that are known too roughly to have been searched for zeros."""
    return [label for label, how in kinds_of(field).items() if how not in ("exact", "integrated")]


def zeros(field: xr.Dataset, label: str) -> dict[str, np.ndarray]:
    """Stable and unstable zeros of a field, and stable points on the edge of the domain: ``[zero, coordinate]``."""
    if not field.sizes.get("zero"):
        return {name: np.empty((0, 2)) for name in ("stable", "unstable", "edge")}
    mine = np.array([str(f) == label for f in field["zero_field"].values])
    stable, edge = (field[k].values.astype(bool) for k in ("stable", "boundary"))
    spots = field["zero_position"].transpose("zero", "coordinate").values
    inner = mine & ~edge
    return {"stable": spots[inner & stable], "unstable": spots[inner & ~stable], "edge": spots[mine & edge]}


def arrows(field: xr.Dataset, label: str, count: int = ARROWS) -> tuple[np.ndarray, ...]:
    """What is drawn of a field: x, y, u, v of arrows at most 1 long, and which are less than noise.

    Args:
        field: The fields.
        label: Which one.
        count: Arrows along each axis, about.
    """
    thin = field.sel(field=label).isel({k: _thinned(field.sizes[k], count) for k in ("y", "x")})
    towards = -thin["vector"].transpose("y", "x", "coordinate").values
    error = thin["error"].transpose("y", "x", "coordinate").values
    length = np.linalg.norm(towards, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        height = 1 + np.log10(length / np.nanmax(length, initial=0.0)) / _DECADES * (1 - _SHORTEST)
        unit = towards / length[..., None] * np.clip(height, _SHORTEST, 1.0)[..., None]
    x, y = np.meshgrid(thin["x"].values, thin["y"].values)
    drawn = np.isfinite(unit).all(axis=-1)
    noise = length < 2 * np.linalg.norm(error, axis=-1)
    return x[drawn], y[drawn], unit[drawn][:, 0], unit[drawn][:, 1], noise[drawn]


def _thinned(size: int, count: int) -> slice:
    """About ``count`` of ``size`` places, as far from one end as from the other and not on them."""
    step = max(1, round(size / count))
    few = (size - 1 - 2 * (step // 2)) // step + 1
    first = (size - 1 - (few - 1) * step) // 2
    return slice(first, first + (few - 1) * step + 1, step)


def _draw(field: xr.Dataset, ends: dict[str, np.ndarray], size: float) -> tuple[PaperFigure, str]:
    shown = labels(field)
    count = ARROWS if size / across(len(shown), size) > 2.2 else 11
    contours = ""
    with paper():
        figure, axes = make_maps(field, len(shown), size)
        for axis, label in zip(axes, shown, strict=True):
            contours = draw_surface(axis, field, filled=False, color="0.82")
            _draw_panel(axis, field, label, ends.get(label), count)
        name_maps(axes, shown, field, size)
        add_legend(figure, _handles(field, ends), place="lower")
    return figure, contours


def _draw_panel(axes: Axes, field: xr.Dataset, label: str, ends: np.ndarray | None, count: int) -> None:
    color = str(field["color"].sel(field=label).values)
    x, y, u, v, noise = arrows(field, label, count)
    look: dict[str, Any] = {"pivot": "mid", "scale_units": "width", "scale": 1.12 * count, "units": "width"}
    look |= {"width": 0.09 / count, "headwidth": 3.4, "headlength": 3.6, "headaxislength": 3.2, "zorder": 2}
    for mine, alpha, name in ((~noise, 0.85, "arrows"), (noise, 0.25, "noise")):
        if mine.any():
            axes.quiver(x[mine], y[mine], u[mine], v[mine], color=color, alpha=alpha, gid=name, **look)
    if ends is not None:
        # above the zeros, where most of them may be
        axes.plot(*ends.T, zorder=6, gid="ends", rasterized=True, **_END)
    if label != GRADIENT and GRADIENT in labels(field):
        theirs = zeros(field, GRADIENT)
        spots = np.concatenate([theirs["stable"], theirs["unstable"]])
        axes.plot(*spots.T, color="0.25", zorder=4, gid="gradient zeros", **_SHIFT)
    for kind, points in zeros(field, label).items():
        if len(points):  # an empty line that is not clipped has no extent that a layout could use
            axes.plot(*points.T, zorder=5, gid=kind, **_ZEROS[kind])


def _handles(field: xr.Dataset, ends: dict[str, np.ndarray]) -> list[Any]:
    grey = matplotlib.colors.to_hex("0.25")
    sought = " (where looked for)" if unsought(field) else ""
    found: list[Any] = [
        Line2D([], [], label=f"{kind} zero{sought}", **_ZEROS[kind]) for kind in ("stable", "unstable")
    ]
    if any(len(zeros(field, f)["edge"]) for f in labels(field)):
        found.append(Line2D([], [], label="stable if projected", **_ZEROS["edge"] | {"clip_on": True}))
    if len(labels(field)) > 1 and GRADIENT in labels(field):
        found.append(Line2D([], [], color=grey, label="zero of the gradient", **_SHIFT))
    if ends:
        found.append(Line2D([], [], label="end of a walker", **_END))
    return found


def _caption(field: xr.Dataset, path: Any, ends: dict[str, np.ndarray], contours: str) -> list[str]:
    said = [
        f"Mean directions of descent on {field.attrs.get('function')} (minus the field; {_origins(field)}). Arrow "
        f"lengths grow with the logarithm of a vector's length, over {_DECADES:g} decades below the longest of each "
        "panel, so they compare within a panel only. Circles: zeros of the field, filled where descending it stays."
    ]
    if any(len(zeros(field, f)["edge"]) for f in labels(field)):
        said.append("Squares: where a descent that is projected onto the domain stays on its edge.")
    said += _pale(field) + _rough(field)
    if ends:
        counts = ", ".join(f"{len(points)} ({e})" for e, points in ends.items())
        said.append(f"Dots: last positions of walkers that did not diverge: {counts}.")
        drawn = matched_fields(path, field)
        gone = {e: n for e, n in diverged(path).items() if n and e in drawn}
        if gone:
            said.append("Diverged: " + ", ".join(f"{n} of {e}" for e, n in gone.items()) + ".")
        if len(drawn) < path.sizes["estimator"]:
            said.append("Estimators without a panel are not shown.")
    return [*said, contours]


def _origins(field: xr.Dataset) -> str:
    """How each field was found, and with which noise."""
    sigmas = {f: float(field["sigma"].sel(field=f).values) for f in labels(field)}
    noise = {f: f", sigma {s:g}" if np.isfinite(s) else "" for f, s in sigmas.items()}
    return "; ".join(f"{f}: {how}{noise[f]}" for f, how in kinds_of(field).items())


def _pale(field: xr.Dataset) -> list[str]:
    """What pale arrows mean, by what a field's error is."""
    pale = {f: how for f, how in kinds_of(field).items() if arrows(field, f)[4].any()}
    errors = {
        "two standard errors": [f for f, how in pale.items() if how == "sampled"],
        "twice the difference from a coarser integration": [f for f, how in pale.items() if how != "sampled"],
    }
    return [
        f"Pale arrows of {', '.join(names)}: shorter than {error}, so their direction is not known."
        for error, names in errors.items()
        if names
    ]


def _rough(field: xr.Dataset) -> list[str]:
    """What is not known of fields that are neither exact nor a converged integral."""
    said = []
    for label in unsought(field):
        if kinds_of(field)[label] == "sampled":
            said.append(f"Zeros of {label} were not looked for: its field was sampled.")
            continue
        mine = field.sel(field=label).transpose(..., "coordinate")
        error, length = (np.linalg.norm(mine[k].values, axis=-1) for k in ("error", "vector"))
        share = np.nanmax(error, initial=0.0) / np.nanmax(length, initial=0.0)
        said.append(
            f"The integral of {label} has not converged: it differs from a coarser one by up to {100 * share:.2g} % "
            "of its longest vector, and is to be trusted to no more than that; its zeros were not looked for."
        )
    return said


def _numbers(field: xr.Dataset, ends: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {
            "field": f,
            "color": str(field["color"].sel(field=f).values),
            **zeros(field, f),
            **dict(zip(("x", "y", "u", "v", "noise"), arrows(field, f), strict=True)),
            "ends": ends.get(f),
        }
        for f in labels(field)
    ]
