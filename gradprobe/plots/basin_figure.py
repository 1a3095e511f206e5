"""Which minimum descents from a grid of starts end in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.plots import register
from gradprobe.plots._maps import add_legend, make_maps, name_maps
from gradprobe.plots._path_caption import cautions, lost_walkers, made
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, inches, paper
from gradprobe.plots._surface import draw_surface, kinds, two_variables
from gradprobe.plots._walkers import Method, methods, point, seed_index
from gradprobe.stats.basin import LOST, NOWHERE
from gradprobe.store.paths import check_kind, with_starts

COLORS = ("#332288", "#DDCC77", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#AA4499", "#999933")
"""Of minima: Tol's muted scheme, in an order whose neighbours differ in lightness too."""
LIGHT, DARK = "#E4E4E4", "#2B2B2B"
"""Of walkers that end elsewhere, and of those that diverged."""
_CROSS: dict[str, Any] = {
    "ls": "none",
    "marker": "x",
    "color": "white",
    "markeredgewidth": 0.5,
    "rasterized": True,
}
_FAINTEST = 0.25
_SHARES = (0.5, 0.75, 1.0)


@register(
    "basins", summary="the minimum that descents from each of a grid of starts end in, one map per method"
)
def basins(
    path: xr.Dataset,
    *,
    radius: float | None = None,
    seed: int | None = None,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw the basins of attraction of each method: every start has the colour of the minimum it led to.

    With several seeds a cell shows the most frequent end, in full colour where all seeds agree and fainter the
    fewer do. Numbers mark the known minima.

    Args:
        path: Result of ``gp.descend`` from starts that form a grid.
        radius: How near a minimum counts as there; default of ``gp.stats.basins``.
        seed: One seed alone; all by default.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json.

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: It is no path, its starts are no grid, or the seed is unknown.
    """
    wide = with_starts(check_kind(path, "path"))
    two_variables(wide, "a map of basins")
    grid = starts_grid(wide)
    if seed is not None:
        wide = wide.isel(seed=[seed_index(wide, seed)])
    found = stats.agreement(wide, radius=radius)
    most, share = (found[k].transpose("estimator", "start").values[:, grid[2]] for k in ("end", "share"))
    figure, contours = _draw(wide, grid, most, share, wide.sizes["seed"], inches(width))
    figure.gradprobe_caption = " ".join(_caption(wide, found.attrs["radius"], contours))
    arguments = {"radius": radius, "seed": seed, "width": width}
    numbers = [
        {"estimator": m.label, "color": m.color, "minimum": most[m.rank], "share": share[m.rank]}
        for m in methods(wide)
    ]
    record: dict[str, Any] = {"figure": "basins", "caption": figure.gradprobe_caption, "arguments": arguments}
    record |= {"x": grid[0], "y": grid[1], "methods": numbers} | made_from(wide)
    return finish(figure, record, save)


def starts_grid(path: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The axes of a grid of starts, and which start ``[y, x]`` is at each of its points.

    Raises:
        UsageError: The starts are no grid.
    """
    places = path["start_position"].transpose("start", "coordinate").values
    (x, column), (y, row) = (np.unique(places[:, i], return_inverse=True) for i in (0, 1))
    index = np.full((y.size, x.size), -1)
    index[row, column] = np.arange(len(places))
    if len(places) != index.size or (index < 0).any() or min(index.shape) < 2:
        raise UsageError(
            f"a map of basins needs starts on a grid, at least two by two of them; these {len(places)} are none."
        )
    return x, y, index


def color_of(code: int) -> str:
    """Colour of an end: of a minimum by its number, of the rest in grey."""
    return {NOWHERE: LIGHT, LOST: DARK}.get(code) or COLORS[code % len(COLORS)]


def _faded(color: str, share: float) -> str:
    strength = _FAINTEST + (1 - _FAINTEST) * share
    red, green, blue = (1 - strength * (1 - c) for c in matplotlib.colors.to_rgb(color))
    return matplotlib.colors.to_hex((red, green, blue))


def _draw(
    path: xr.Dataset, grid: Any, most: np.ndarray, share: np.ndarray, seeds: int, size: float
) -> tuple[PaperFigure, str]:
    shown = methods(path)
    contours = ""
    with paper():
        figure, axes = make_maps(path, len(shown), size)
        for axis, method in zip(axes, shown, strict=True):
            contours = _draw_panel(axis, path, grid, most, share, method)
        name_maps(axes, [m.label for m in shown], path, size)
        add_legend(figure, _handles(path, most, share if seeds > 1 else None), place="lower")
    return figure, contours


def _draw_panel(
    axes: Axes, path: xr.Dataset, grid: Any, most: np.ndarray, share: np.ndarray, method: Method
) -> str:
    x, y, _ = grid
    ends, strength = most[method.rank], share[method.rank]
    faded = [_faded(color_of(int(c)), float(s)) for c, s in zip(ends.ravel(), strength.ravel(), strict=True)]
    cells = matplotlib.colors.to_rgba_array(faded).reshape(*ends.shape, 4)
    sentence = draw_surface(axes, path, filled=False, color="#00000055")
    mesh = axes.pcolormesh(x, y, cells, shading="nearest", zorder=0.2, rasterized=True)
    mesh.set_gid("cells")
    lost = np.argwhere(ends == LOST)
    size = 0.35 * 72 * axes.get_window_extent().width / axes.figure.dpi / x.size
    if len(lost):  # a second cue, because the first colours are as dark when printed in grey
        axes.plot(x[lost[:, 1]], y[lost[:, 0]], markersize=min(4.0, size), gid="diverged", **_CROSS)
    axes.set(xlim=_ends(x), ylim=_ends(y))
    spots = path["minimum_position"].transpose("minimum", "coordinate").values
    for number, spot in enumerate(spots):
        look: dict[str, Any] = {
            "boxstyle": "circle,pad=0.18",
            "facecolor": "white",
            "edgecolor": "black",
            "linewidth": 0.5,
        }
        axes.text(
            spot[0],
            spot[1],
            str(number + 1),
            ha="center",
            va="center",
            fontsize=6,
            bbox=look,
            gid="minimum",
            zorder=5,
            clip_on=True,
        )
    return sentence


def _ends(centres: np.ndarray) -> tuple[float, float]:
    """Outer edges of a row of cells."""
    steps = np.diff(centres)
    return float(centres[0] - steps[0] / 2), float(centres[-1] + steps[-1] / 2)


def _handles(path: xr.Dataset, most: np.ndarray, share: np.ndarray | None) -> list[Any]:
    """The ends that are seen, and what fainter colours mean."""
    seen = set(most.ravel().tolist())
    names = [f"{i + 1}: {kind} {point(p)}" for i, (kind, p) in enumerate(_minima(path))]
    found: list[Any] = [Patch(facecolor=color_of(i), label=n) for i, n in enumerate(names) if i in seen]
    if NOWHERE in seen:
        found.append(Patch(facecolor=LIGHT, label="elsewhere"))
    if LOST in seen:
        found.append(Patch(facecolor=DARK, edgecolor="white", hatch="xxxx", linewidth=0, label="diverged"))
    if share is not None and share.min() < 1:
        looks: dict[str, Any] = {"ls": "none", "marker": "s", "markersize": 6, "markeredgewidth": 0}
        found += [
            Line2D([], [], color=_faded("#555555", s), label=f"{100 * s:.0f} % of seeds", **looks)
            for s in _SHARES
        ]
    return found


def _minima(path: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    spots = path["minimum_position"].transpose("minimum", "coordinate").values
    return list(zip(kinds(path), spots, strict=True))


def _caption(path: xr.Dataset, radius: float, contours: str) -> list[str]:
    seeds, count = path.sizes["seed"], len(_minima(path))
    none = "the one known minimum is not" if count == 1 else f"none of the {count} known ones is"
    said = [
        f"Where descents end: each cell is a start, in the colour of the minimum that is nearest (within "
        f"{radius:.3g}) to its walker at the last step; light grey: {none} that near; dark, with a cross: diverged."
    ]
    if seeds > 1:
        said.append(f"The most frequent end over {seeds} seeds; the fainter a cell, the fewer of them agree.")
    if count > len(COLORS):
        said.append(f"Colours repeat after {len(COLORS)} minima.")
    return said + [contours] + made(path) + lost_walkers(path, False) + cautions(path, forwards=False)
