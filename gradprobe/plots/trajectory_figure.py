"""Descents on a function: where they went, and what they reached for how many evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import one_of
from gradprobe.plots import register
from gradprobe.plots._maps import add_legend
from gradprobe.plots._path_caption import cautions, lost_walkers, made
from gradprobe.plots._path_panels import X_LABELS, abscissa, draw_chosen, draw_others, draw_progress, handles
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import PaperFigure, despine, inches, paper
from gradprobe.plots._surface import draw_minima, draw_surface, minima_handles, ratio, value
from gradprobe.plots._walkers import diverged, left, methods, one_start, seed_index

QUANTILES = (0.1, 0.9)


@register("trajectory", summary="paths of descents on a function's contours, and loss against evaluations")
def trajectory(
    path: xr.Dataset,
    *,
    seed: int | None = None,
    start: int = 0,
    log: bool = True,
    x: str = "forwards",
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw where descents went and how their loss fell, as in Fig. 6 of the ALR paper.

    Left (functions of two variables): contours of f in grey, one path of each method from an open circle to
    the method's marker, all other seeds as thin lines, known minima. Right: median and 10-90 % of seeds of the
    loss above the minimum. What leaves the frame or diverges is counted in the caption. All numbers come from
    the path and from :mod:`gradprobe.stats`.

    Source: Fig. 6 of arXiv 2403.12320v1; the other seeds and the right panel are additions.

    Args:
        path: Result of ``gp.descend``.
        seed: The seed whose path is drawn thick; the first by default.
        start: Which of several starts.
        log: Log scales for contours and losses, where values allow it.
        x: ``forwards`` or ``steps``.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json (with the curves shown).

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: It is no path, or a seed, start or option is unknown.
    """
    chosen = one_start(path, start)
    one_of("x", x, list(X_LABELS))
    row = seed_index(chosen, seed)
    progress = stats.progress(chosen, quantiles=QUANTILES)
    figure, contours = _draw(chosen, progress, row, x, log, inches(width))
    figure.gradprobe_caption = " ".join(_caption(chosen, row, x, contours))
    arguments = {"seed": int(chosen["seed"].values[row]), "start": start, "log": log, "x": x, "width": width}
    record = {"figure": "trajectory", "caption": figure.gradprobe_caption, "arguments": arguments}
    record |= {"methods": _numbers(chosen, progress, x)} | made_from(chosen)
    return finish(figure, record, save)


def _draw(
    path: xr.Dataset, progress: xr.Dataset, row: int, x: str, log: bool, size: float
) -> tuple[PaperFigure, str]:
    mapped = "surface" in path
    panel = 2.3 if size >= 5 else 2.1
    stacked = mapped and size < 5
    contours = ""
    with paper():
        figure = PaperFigure(figsize=(size, panel), layout="constrained")
        if mapped:
            tall = min(max(ratio(path), 0.55), 1.5)
            shape = (2, 1) if stacked else (1, 2)
            side: dict[str, Any] = (
                {"height_ratios": (tall * 2.6, 1.9)} if stacked else {"width_ratios": (1, 1.25)}
            )
            axes = list(figure.subplots(*shape, **side).flat)
            figure.set_figheight(tall * 2.6 + 1.9 + 0.6 if stacked else 0.4 * size * tall + 0.25)
            contours = draw_surface(axes[0], path, log=log)
            draw_others(axes[0], path, row)
            draw_chosen(axes[0], path, row)
            draw_minima(axes[0], path)
            axes[0].set_title(str(path.attrs.get("function", "")))
        else:
            axes = [figure.subplots()]
            axes[0].set_title(str(path.attrs.get("function", "")))
        draw_progress(axes[-1], path, progress, x, log)
        axes[-1].grid(axis="y", color="0.92", linewidth=0.4)
        despine(axes[-1])
        entries = handles(path, path.sizes["seed"] == 1, mapped) + (minima_handles(path) if mapped else [])
        add_legend(figure, entries)
    return figure, contours


def _caption(path: xr.Dataset, row: int, x: str, contours: str) -> list[str]:
    seeds, mapped = path.sizes["seed"], bool(contours)
    said = made(path)
    if mapped:
        thick = (
            f"the path of seed {path['seed'].values[row]} for each method, from the open circle to its marker"
        )
        said.append(f"Left: {thick}{'; thin: all other seeds' if seeds > 1 else ''}. {contours}")
    what = "loss" if value(path) is None else f"loss minus the minimum value ({value(path):g})"
    band = "median (line) and 10–90 % (shading) of seeds" if seeds > 1 else "one seed"
    said.append(
        f"{'Right: ' if mapped else ''}{what} against {X_LABELS[x]}; {band}.".replace(
            "loss", "Loss", not mapped
        )
    )
    return said + lost_walkers(path, mapped) + cautions(path, forwards=x == "forwards")


def _numbers(path: xr.Dataset, progress: xr.Dataset, x: str) -> list[dict[str, Any]]:
    """The curves of the right panel, and what was counted."""
    gone = diverged(path)
    out = left(path) if "surface" in path else {}
    return [
        {
            "estimator": m.label,
            "color": m.color,
            "lr": path["lr"].values[m.rank],
            "x": abscissa(progress, m, x),
            "diverged": gone[m.label],
            "left": out.get(m.label),
            **{k: progress[k].values[m.rank] for k in ("loss", "loss_low", "loss_high")},
        }
        for m in methods(path)
    ]
