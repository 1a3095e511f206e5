"""How many walkers have reached a global minimum, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradprobe import stats
from gradprobe.core.errors import UsageError, one_of
from gradprobe.plots import register
from gradprobe.plots._draw import BAND_ALPHA
from gradprobe.plots._maps import add_legend
from gradprobe.plots._path_caption import cautions, counting, lost_walkers, made, thinned
from gradprobe.plots._path_panels import X_LABELS, abscissa, from_zero
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, despine, inches, paper
from gradprobe.plots._walkers import Method, methods
from gradprobe.store.paths import check_kind


@register(
    "reached", summary="share of walkers that have reached a global minimum, against steps and evaluations"
)
def reached(
    path: xr.Dataset,
    *,
    radius: float | None = None,
    x: str | Sequence[str] = ("steps", "forwards"),
    level: float = 0.95,
    stay: bool = False,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw the share of walkers that have reached a global minimum, one panel for each way of counting.

    A walker is one seed from one start. Shading: Wilson's interval at each step.

    Args:
        path: Result of ``gp.descend``.
        radius: How near counts as reached; default of ``gp.stats.progress``.
        x: ``steps``, ``forwards``, or both.
        level: Level of the interval.
        stay: Count only walkers that stay there through the last tenth of the steps, not those that pass by.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with the curves shown).

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: It is no path, no global minimum is known, or an option is unknown.
    """
    check_kind(path, "path")
    sides = [x] if isinstance(x, str) else list(x)
    for side in sides or [""]:
        one_of("x", side, list(X_LABELS))
    progress = stats.progress(path, radius=radius, level=level, stay=stay)
    if not np.isfinite(progress["reached"].values).any():
        raise UsageError(
            f"which minimum of {path.attrs.get('function')} was reached is not known; give minima= and domain= to "
            "gp.descend, or radius= here."
        )
    verb = "stay at" if stay else "have reached"
    figure = _draw(path, progress, sides, verb, inches(width))
    _add_legend(figure, path, level)
    figure.gradprobe_caption = " ".join(_caption(path, progress, sides, stay, level))
    arguments = {"radius": radius, "x": sides, "level": level, "stay": stay, "width": width}
    record = {"figure": "reached", "caption": figure.gradprobe_caption, "arguments": arguments}
    record |= {"methods": _numbers(path, progress)} | made_from(path)
    return finish(figure, record, save)


def _draw(path: xr.Dataset, progress: xr.Dataset, sides: list[str], verb: str, size: float) -> PaperFigure:
    stacked = size < 5
    count = len(sides)
    with paper():
        height = 1.75 * count if stacked else min(0.6 * size / count, 2.3)
        figure = PaperFigure(figsize=(size, height + 0.1), layout="constrained")
        shape = (count, 1) if stacked else (1, count)
        axes = list(figure.subplots(*shape, sharey=True, squeeze=False).flat)
        for axis, side in zip(axes, sides, strict=True):
            for method in methods(path):
                _draw_curve(axis, progress, method, side)
            from_zero(axis, np.stack([abscissa(progress, m, side) for m in methods(path)]))
            axis.set(xlabel=X_LABELS[side], ylim=(-0.02, 1.02))
            axis.set_ylabel(f"share of walkers that\n{verb} a minimum" if stacked or axis is axes[0] else "")
            axis.grid(axis="y", color="0.92", linewidth=0.4)
            despine(axis)
    return figure


def _add_legend(figure: PaperFigure, path: xr.Dataset, level: float) -> None:
    with paper():
        add_legend(figure, _handles(path, level))


def _draw_curve(axes: Axes, progress: xr.Dataset, method: Method, side: str) -> None:
    at = abscissa(progress, method, side)
    share, low, high = (progress[f"reached{k}"].values[method.rank] for k in ("", "_low", "_high"))
    there = np.isfinite(at) & np.isfinite(share)
    order = 2.0 + 0.01 * method.rank
    axes.plot(
        at[there],
        share[there],
        drawstyle="steps-post",
        color=method.color,
        linestyle=method.dashes,
        markevery=[int(there.sum()) - 1] if there.any() else None,
        zorder=order,
        clip_on=False,
        label=method.label,
        gid="share",
        **method.marker,
    )
    if method.stochastic:
        look: dict[str, Any] = {"color": method.color, "alpha": BAND_ALPHA, "linewidth": 0, "gid": "band"}
        axes.fill_between(at[there], low[there], high[there], step="post", zorder=order - 1, **look)


def _handles(path: xr.Dataset, level: float) -> list[Any]:
    found: list[Any] = [
        Line2D([], [], color=m.color, linestyle=m.dashes, markersize=4.5, label=m.label, **m.marker)
        for m in methods(path)
    ]
    if any(m.stochastic for m in methods(path)):
        found.append(
            Patch(facecolor="0.35", alpha=2 * BAND_ALPHA, linewidth=0, label=f"{100 * level:g} % interval")
        )
    return found


def _caption(path: xr.Dataset, progress: xr.Dataset, sides: list[str], stay: bool, level: float) -> list[str]:
    near = f" (come within {float(progress.attrs['radius']):.3g} of it)"
    walkers = path.sizes["seed"] * path.sizes.get("start", 1)
    stays = " and stay there through the last tenth of the steps" if stay else ""
    said = [
        f"Share of {walkers} walkers that reach a global minimum{near}{stays}, against "
        f"{' and '.join(X_LABELS[s] for s in sides)}; log axes, linear up to the first recorded step.",
        *counting(stay, thinned(path)),
    ]
    noisy = [m.label for m in methods(path) if m.stochastic]
    if noisy:
        said.append(f"Shading: Wilson's {100 * level:g} % interval, pointwise, for these starts.")
    if len(noisy) < path.sizes["estimator"]:
        said.append("Methods without noise have none: their walkers are alike over seeds.")
    return said + made(path) + lost_walkers(path, False) + cautions(path, forwards="forwards" in sides)


def _numbers(path: xr.Dataset, progress: xr.Dataset) -> list[dict[str, Any]]:
    names = ("reached", "reached_low", "reached_high")
    return [
        {
            "estimator": m.label,
            "color": m.color,
            "steps": abscissa(progress, m, "steps"),
            "forwards": abscissa(progress, m, "forwards"),
            **{k: progress[k].values[m.rank] for k in names},
        }
        for m in methods(path)
    ]
