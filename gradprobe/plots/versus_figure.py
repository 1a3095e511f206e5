"""Is one method really better than another? The same question under several rules of descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.plots import register
from gradprobe.plots._maps import add_legend
from gradprobe.plots._path_caption import cautions, counting, lost_walkers, made, thinned
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, despine, inches, paper
from gradprobe.plots._walkers import Method, methods
from gradprobe.store.paths import check_kind

DIFFERENCES = {"success": "share that {verb}", "earlier": "{verb} earlier", "lower": "end lower"}
ROW = 0.42
"""Inches for each path."""


@register("versus", summary="paired differences between two methods under several rules of descent")
def versus(
    paths: Mapping[str, xr.Dataset],
    first: str,
    second: str,
    *,
    radius: float | None = None,
    stay: bool = False,
    level: float = 0.95,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw how many walkers of each method reach a minimum, and the paired differences between two of the methods.

    One row for each path. First panel: share of walkers that reach a global minimum, with interval, for all
    methods. Then, right of zero in favour of ``first``: the difference of these shares; the share of pairs (same
    start, same noise) in which ``first`` reaches in fewer steps minus that in which ``second`` does; the same for
    the lower loss at the end.

    Args:
        paths: Name of a row -> result of ``gp.descend``.
        first: An estimator of each path.
        second: Another one.
        radius: How near counts as reached; default of ``gp.stats.success``.
        stay: Count only walkers that stay there through the last tenth of the steps, not those that pass by.
        level: Level of the intervals.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json.

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: There is no path, or an estimator is missing in one.
    """
    if not isinstance(paths, Mapping) or not paths:
        raise UsageError("versus needs paths by name, such as {'sgd': path, 'adam': other}.")
    for path in paths.values():
        check_kind(path, "path")
    options: dict[str, Any] = {"radius": radius, "stay": stay, "level": level}
    shares = {name: stats.success(path, **options) for name, path in paths.items()}
    found = {name: stats.difference(path, first, second, **options) for name, path in paths.items()}
    figure = _draw(paths, shares, found, (first, second), "stay" if stay else "reach", inches(width))
    figure.gradprobe_caption = " ".join(_caption(paths, shares, first, second, stay, level))
    rows = [
        {"row": name, "share": _plain(shares[name]), "difference": _plain(found[name]), **made_from(path)}
        for name, path in paths.items()
    ]
    arguments = options | {"first": first, "second": second, "width": width}
    record = {"figure": "versus", "caption": figure.gradprobe_caption, "arguments": arguments, "rows": rows}
    return finish(figure, record, save)


def _draw(
    paths: Mapping[str, xr.Dataset],
    shares: Mapping[str, xr.Dataset],
    found: Mapping[str, xr.Dataset],
    pair: tuple[str, str],
    verb: str,
    size: float,
) -> PaperFigure:
    stacked = size < 5
    count = 1 + len(DIFFERENCES)
    with paper():
        height = ROW * len(paths) + 0.65
        figure = PaperFigure(figsize=(size, height * (count if stacked else 1)), layout="constrained")
        shape = (count, 1) if stacked else (1, count)
        axes = list(figure.subplots(*shape, sharey=True, squeeze=False).flat)
        _draw_shares(axes[0], paths, shares)
        axes[0].set(xlim=(-0.03, 1.03), xlabel=f"share of walkers\nthat {verb}")
        for axis, (name, label) in zip(axes[1:], DIFFERENCES.items(), strict=True):
            _draw_difference(axis, list(found.values()), name)
            axis.set_xlabel(f"{label.format(verb=verb)}:\n{pair[0]} minus {pair[1]}")
        axes[0].set(yticks=range(len(paths)), yticklabels=list(paths), ylim=(len(paths) - 0.5, -0.5))
        for axis in axes:
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x", color="0.92", linewidth=0.4)
            axis.set_axisbelow(True)
            despine(axis)
        handles = {m.label: m for path in paths.values() for m in methods(path)}
        add_legend(figure, [Line2D([], [], ls="none", label=k, **m.marker) for k, m in handles.items()])
    return figure


def _draw_shares(axes: Axes, paths: Mapping[str, xr.Dataset], shares: Mapping[str, xr.Dataset]) -> None:
    for row, (name, path) in enumerate(paths.items()):
        every = methods(path)
        for method in every:
            y = row + 0.22 * (method.rank - (len(every) - 1) / 2)
            mine = shares[name].sel(estimator=method.label)
            _draw_interval(axes, y, [float(mine[f"rate{k}"]) for k in ("", "_low", "_high")], method)


def _draw_interval(axes: Axes, y: float, ends: Sequence[float], method: Method | None) -> None:
    """A value with its interval: ``ends`` are value, low and high."""
    value, low, high = ends
    color = "black" if method is None else method.color
    look: dict[str, Any] = {"marker": "o", "color": "black"} if method is None else method.marker
    axes.plot(
        [low, high], [y, y], color=color, linewidth=1.2, solid_capstyle="butt", zorder=2, gid="interval"
    )
    axes.plot([value], [y], ls="none", zorder=3, clip_on=False, gid="value", **look)


def _draw_difference(axes: Axes, found: list[xr.Dataset], name: str) -> None:
    ends = np.array([[float(d[f"{name}{k}"]) for k in ("", "_low", "_high")] for d in found])
    for row, mine in enumerate(ends):
        if np.isfinite(mine[0]):
            _draw_interval(axes, float(row), list(mine), None)
    axes.axvline(0, color="0.35", linewidth=0.7, zorder=1)
    reach = min(1.0, max(0.05, 1.1 * float(np.nanmax(np.abs(ends), initial=0.0))))
    axes.set_xlim(-reach, reach)


def _caption(
    paths: Mapping[str, xr.Dataset],
    shares: Mapping[str, xr.Dataset],
    first: str,
    second: str,
    stay: bool,
    level: float,
) -> list[str]:
    radii = [f"{ds.attrs['radius']:.3g}" for ds in shares.values()]
    near = f"within {radii[0]} of it" if len(set(radii)) == 1 else "within the radius of their row"
    stays = " and stay there through the last tenth of the steps" if stay else ""
    said = [
        f"Left: share of walkers that reach a global minimum (come {near}){stays}; lines: Wilson's {100 * level:g} % "
        "interval (none for methods without noise). Others: paired differences over walkers with the same start and "
        f"seed, right of zero in favour of {first} over {second}; lines: {100 * level:g} % intervals of Agresti and "
        "Min. All intervals are about noise, for these starts.",
        *counting(stay, any(thinned(path) for path in paths.values())),
    ]
    return [*said, *_rows(paths, radii), *_warnings(paths)]


def _warnings(paths: Mapping[str, xr.Dataset]) -> list[str]:
    """Cautions, each once, with the rows that it holds for unless that is all."""
    rows: dict[str, list[str]] = {}
    for name, path in paths.items():
        for text in cautions(path, forwards=False):
            rows.setdefault(text, []).append(_one_line(name))
    return [
        text if len(names) == len(paths) else f"{', '.join(names)}: {text}" for text, names in rows.items()
    ]


def _one_line(name: str) -> str:
    return " ".join(str(name).split())


def _rows(paths: Mapping[str, xr.Dataset], radii: list[str]) -> list[str]:
    """How each path was made and what became of its walkers; what is true of all of them is said once."""
    told = {name: made(path) + lost_walkers(path, False) for name, path in paths.items()}
    if len(set(radii)) > 1:
        for sentences, radius in zip(told.values(), radii, strict=True):
            sentences.insert(1, f"Radius {radius}.")
    first, *others = told.values()
    shared = [text for text in first if others and all(text in other for other in others)]
    left = {name: [text for text in own if text not in shared] for name, own in told.items()}
    rows = [f"{_one_line(name)}: {' '.join(own)}" for name, own in left.items() if own]
    return rows + ([f"All rows: {' '.join(shared)}"] if shared else [])


def _plain(ds: xr.Dataset) -> dict[str, Any]:
    return {str(k): v.values for k, v in {**ds.coords, **ds.data_vars}.items()}
