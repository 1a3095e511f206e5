"""Layers by methods as a table in colour: where a method is biased, where it is noisy, where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gradprobe.core.errors import UsageError, one_of, positive
from gradprobe.plots import register
from gradprobe.plots._cells import LOG, MODEL, Cells, cells, number
from gradprobe.plots._choice import choose_estimators, choose_layers
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import LETTER, NOTE_SIZE, PaperFigure, inches, paper

QUANTITIES = {
    "ceiling": "ceiling: cosine with endlessly many copies",
    "half_copies": "half-power copies",
    "price": "price in copies",
    "gain": "gain: length along the reference / reference",
    "cosine": "cosine",
}
MAPS = {
    "ceiling": "cividis",
    "cosine": "cividis",
    "gain": "cividis",
    "half_copies": "cividis_r",
    "price": "cividis_r",
}
"""Light is good: cividis is the same for eyes that cannot tell red from green."""

EMPTY = "0.94"
MANY = 24
"""Layers from which on rows are low."""
LOW, HIGH = 0.115, 0.2
"""Height of a row in inches, with many layers and with few."""


@register(
    "heatmap", summary="layers by methods in colour with numbers: ceiling, half-power copies, price or cosine"
)
def heatmap(
    ds: xr.Dataset,
    quantity: str = "ceiling",
    *,
    copies: float | None = None,
    reference: str = "bp",
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    model: bool = True,
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw one quantity of every layer under every method, as a table in colour with the numbers written in.

    A number stands only where it is one. Hatched: only a bound is known (a ceiling that is "bounded" or "unresolved",
    copies without an upper end, a cosine or gain whose interval holds 0). In brackets: too few seeds for an interval.
    Grey with a dash: the method does not serve the layer; with a question mark: not computed, failed, or fewer than
    two blocks; "none": the gradient or the estimate is zero. All numbers come from ``gradprobe.stats.alignment`` and
    ``predict``.

    Args:
        ds: Results.
        quantity: ``ceiling`` (default), ``half_copies``, ``price``, ``gain``, or ``cosine``, the law's at ``copies``.
        copies: n of the quantity ``cosine``, inside the run or beyond it; default: the run's last.
        reference: ``bp`` (default), or another of the run.
        estimators: Labels, from left to right; all by default.
        layers: Names or globs; all by default, in execution order.
        model: Add a row of the whole model.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches; the height follows the layers.
        save: Path without ending: writes .png, .pdf and .json (with all numbers shown).

    Returns:
        The figure; its caption is in ``gradprobe_caption``.

    Raises:
        UsageError: A name or option is unknown, or there is nothing to draw.
    """
    one_of("quantity", quantity, tuple(QUANTITIES))
    size = inches(width)
    labels, names = choose_estimators(ds, estimators), choose_layers(ds, layers)
    if not labels or not names:
        raise UsageError("there is nothing to draw; choose at least one estimator and one layer.")
    n = float(ds["copies"].values[-1]) if copies is None else positive("copies", copies)
    found = cells(ds, quantity, labels, names, reference, n, model)
    figure = _draw(found, quantity, size, n)
    figure.gradprobe_caption = _caption(ds, found, quantity, reference, n)
    given: dict[str, Any] = {"quantity": quantity, "copies": n, "reference": reference, "estimators": labels}
    given |= {"layers": names, "model": model, "width": width}
    record = {"figure": "heatmap", "caption": figure.gradprobe_caption, "arguments": given}
    return finish(figure, record | {"cells": found.to_dict()} | made_from(ds), save)


def _draw(found: Cells, quantity: str, size: float, n: float) -> PaperFigure:
    row = LOW if len(found.layers) > MANY else HIGH
    with paper():
        longest = max(len(line) for label in found.methods for line in _lines(label))
        small = min(6.5, 72 * row * 0.8)
        names = max(len(_short(name)) for name in found.layers) * LETTER * small / 72
        room = max(size - names - 0.2, 0.3 * size) / len(found.methods)
        upright = longest * LETTER * 6.5 / 72 > 0.95 * room
        head = longest * LETTER * 6.5 / 72 if upright else 0.12 * max(len(_lines(m)) for m in found.methods)
        height = len(found.layers) * row + head + 0.85
        figure = PaperFigure(figsize=(size, height), layout="constrained")
        axis, bar = figure.subplots(2, 1, height_ratios=[height - 0.75, 0.09])
        _fill(axis, bar, found, quantity, min(0.62 * 72 * row, _fitting(found, room)))
        axis.set_xticks(
            np.arange(len(found.methods)) + 0.5,
            ["\n".join(_lines(m)) for m in found.methods],
            rotation=90 if upright else 0,
        )
        axis.set_yticks(np.arange(len(found.layers)) + 0.5, [_short(x) for x in found.layers], rotation=0)
        axis.tick_params(axis="y", labelsize=small, length=0)
        axis.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
        at = f" after {n:,g} copies" if quantity == "cosine" else ""
        bar.set_xlabel(QUANTITIES[quantity] + at)
        _legend(figure, found)
    return figure


def _fill(axis: Axes, bar: Axes, found: Cells, quantity: str, letters: float) -> None:
    """Colours, numbers and marks."""
    known = np.isfinite(found.value)
    norm, low, high = _scale(quantity, found.value[known])
    ends = {"norm": norm, "vmin": low, "vmax": high}
    shown = np.clip(np.where(known, found.value, low), low, high)
    sns.heatmap(
        shown, mask=~known, cmap=MAPS[quantity], linewidths=0.4, linecolor="white", ax=axis, cbar_ax=bar,
        cbar_kws={"orientation": "horizontal"}, xticklabels=False, yticklabels=False, **ends,
    )  # fmt: skip
    colors = mpl.colormaps[MAPS[quantity]](norm(shown))
    for y, x in np.ndindex(*found.value.shape):
        hatched = found.mark[y, x] == "bound"
        if not known[y, x]:
            axis.add_patch(Rectangle((x, y), 1, 1, gid=str(found.mark[y, x]), **_look(hatched)))
        ink = _ink(colors[y, x]) if known[y, x] else "0.2"
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": letters, "color": ink}
        written = axis.text(x + 0.5, y + 0.52, str(found.text[y, x]), gid="text", **look)
        written.set_in_layout(False)  # hundreds of texts inside the cells need no room
        if hatched:
            written.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    if found.layers[-1] == MODEL and len(found.layers) > 1:
        axis.axhline(len(found.layers) - 1, color="black", linewidth=0.8)
    if quantity in LOG:
        bar.xaxis.set_major_locator(LogLocator(subs=(1, 3) if _span(found) < 1e3 else (1,)))
        bar.xaxis.set_major_formatter(FuncFormatter(lambda v, _: number(quantity, v)))
        bar.xaxis.set_minor_locator(NullLocator())
    bar.tick_params(length=1.5)


def _ink(color: npt.NDArray[np.float64]) -> str:
    """Black or white, whichever stands out more: relative luminance of WCAG 2."""
    light = np.where(color[:3] <= 0.04045, color[:3] / 12.92, ((color[:3] + 0.055) / 1.055) ** 2.4)
    return "black" if float(light @ [0.2126, 0.7152, 0.0722]) > 0.179 else "white"


def _look(hatched: bool) -> dict[str, Any]:
    if hatched:
        return {"facecolor": "white", "edgecolor": "0.72", "hatch": "//////", "linewidth": 0.0}
    return {"facecolor": EMPTY, "edgecolor": "white", "linewidth": 0.4}


def _scale(quantity: str, values: npt.NDArray[np.float64]) -> tuple[Normalize, float, float]:
    """Norm, and the values at the ends of the colours."""
    if quantity not in LOG:
        return Normalize(0.0, 1.0), 0.0, 1.0
    there = values[values > 0]
    low, high = (float(there.min()), float(there.max())) if there.size else (1.0, 10.0)
    high = max(high, 1.5 * low)
    return LogNorm(low, high), low, high


def _span(found: Cells) -> float:
    """Largest over smallest positive value."""
    there = found.value[found.value > 0]
    return float(there.max() / there.min()) if there.size else 1.0


def _fitting(found: Cells, room: float) -> float:
    """Largest size of letters at which the longest text fits into a cell, at most 6.5 points."""
    longest = max(len(text) for text in found.text.flat)
    return min(6.5, 0.92 * room * 72 / (LETTER * max(longest, 3)))


def _lines(label: str) -> list[str]:
    """A label, broken after its name if it has options."""
    head, bracket, rest = label.partition("(")
    return [head, bracket + rest] if bracket and len(label) > 10 else [label]


def _short(name: str, most: int = 34) -> str:
    """A name with its middle left out where it is long; the end of a layer's name tells most."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-(most - most // 3 - 1) :]}"


def _legend(figure: PaperFigure, found: Cells) -> None:
    handles = []
    if (found.mark == "bound").any():
        handles.append(Patch(label="only a bound is known", **_look(True)))
    words = {"–": "not served", "?": "not computed or too few blocks", "none": "zero gradient"}
    for word in (w for w in words if ((found.mark == "none") & (found.text == w)).any()):
        handles.append(Patch(label=f"{word}  {words[word]}", **_look(False)))
    if (found.mark == "no interval").any():
        handles.append(Patch(label="(  )  too few seeds for an interval", facecolor="none", edgecolor="none"))
    if handles:
        look: dict[str, Any] = {"ncols": len(handles), "frameon": False, "fontsize": NOTE_SIZE + 0.5}
        figure.legend(handles=handles, loc="outside upper center", **look)


def _caption(ds: xr.Dataset, found: Cells, quantity: str, reference: str, n: float) -> str:
    about = f" ({ds.attrs['problem']})" if ds.attrs.get("problem") else ""
    at = f" after {n:,g} copies" if quantity == "cosine" else ""
    said = [
        f"{QUANTITIES[quantity].capitalize()}{at}, of every layer under every method{about}, held against "
        f"{reference}, for this batch."
    ]
    count, bounds = found.value.size, int((found.mark == "bound").sum())
    if bounds:
        said.append(
            f"Hatched: {bounds} of {count} cells of which {ds.sizes['seed']} seeds give only a 95 % bound."
        )
    if (found.mark == "no interval").any():
        said.append("In brackets: too few seeds for an interval.")
    last = int(ds["copies"].values[-1])
    if quantity == "cosine" and n > last:
        said.append(f"Predicted by the alignment law: the run ends at {last:,} copies.")
    if found.layers[-1] == MODEL:
        said.append(
            "Whole model: sum over the probed layers with their own gains; refused layers count as 0."
        )
    return " ".join(said)
