"""Every method at a glance: ceiling against price, one point for each layer and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from gradprobe import stats
from gradprobe.core.errors import UsageError, one_of
from gradprobe.plots import register
from gradprobe.plots._choice import choose_estimators, choose_layers
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import MARKERS, NOTE_SIZE, PaperFigure, despine, inches, literal, paper

AGAINST = {
    "equivalents": "price in forward passes of the whole network",
    "copies": "price in Monte-Carlo copies",
}
SIZE = 3.4
ROW, PANEL = 1.5, 1.3
"""Inches of a panel."""
KNOWN = ("resolved", "bounded", "unresolved", "too few seeds")
"""States that give a point or a bound."""


@register("methods", summary="ceiling against price of every method, one point for each layer and method")
def methods(
    runs: Mapping[str, xr.Dataset] | xr.Dataset,
    *,
    against: str = "equivalents",
    estimators: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    reference: str = "bp",
    width: str | float = "double",
    save: str | Path | None = None,
) -> PaperFigure:
    """Draw what a method can reach against what that costs: one row for each run, one panel for each layer.

    Up: the ceiling, the cosine that no number of copies passes. To the right: the price, with 1/cos^2(n) =
    1/ceiling^2 + price/n, in copies, or times what a copy costs in whole forward passes. Top left is best. Lines
    are 95 % intervals over seeds; an open mark stands at the lower bound of a ceiling of which only bounds are
    known. Methods without noise have no price: they stand left of the dotted line. A method is told by its colour
    and its mark.

    Args:
        runs: Results, or {name of a row: results}.
        against: ``equivalents`` (default: price x multiply-adds of a copy that depend on its noise, in forward
            passes of the whole network) or ``copies``.
        estimators: Labels, in the order of the legend; all by default.
        layers: Names or globs; all by default.
        reference: A name along ``ds.reference``.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json.

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: There is no run, a name or option is unknown, or no ceiling is known of anything.
    """
    one_of("against", against, tuple(AGAINST))
    named = _by_name(runs)
    tables = {k: _points(ds, against, estimators, layers, reference) for k, ds in named.items()}
    every = pd.concat(tables.values())
    if every.empty:
        raise UsageError("no ceiling is known of any method and layer; probe with more copies or seeds.")
    names = list(dict.fromkeys(every["layer"]))
    asked = dict.fromkeys(e for ds in named.values() for e in choose_estimators(ds, estimators))
    look = _looks(named.values(), [e for e in asked if e in set(every["estimator"])])
    with paper():
        figure = _draw_all(tables, names, look, every, inches(width))
        figure.supxlabel(AGAINST[against])
        figure.supylabel("ceiling")
    figure.gradprobe_caption = _caption(named, every, against, reference)
    record: dict[str, Any] = {"figure": "methods", "caption": figure.gradprobe_caption}
    record |= {"arguments": {"against": against, "layers": names, "estimators": list(look)}}
    record |= {"runs": {k: {"table": tables[k].to_dict("list")} | made_from(ds) for k, ds in named.items()}}
    return finish(figure, record, save)


def _by_name(runs: Any) -> dict[str, xr.Dataset]:
    if isinstance(runs, xr.Dataset):
        return {"": runs}
    if not isinstance(runs, Mapping) or not runs:
        raise UsageError("methods needs results, or results by name, such as {'trained': ds}.")
    return {str(name): ds for name, ds in runs.items()}


def _points(
    ds: xr.Dataset,
    against: str,
    estimators: str | Sequence[str] | None,
    layers: str | Sequence[str] | None,
    reference: str,
) -> pd.DataFrame:
    """One row for each layer and method of which something is known."""
    labels, names = choose_estimators(ds, estimators), choose_layers(ds, layers)
    law = stats.alignment(ds, reference=reference).sel(estimator=labels, layer=names)
    each = stats.cost(ds)["equivalents"].sel(estimator=labels, layer=names)
    unit = xr.ones_like(each) if against == "copies" else each
    columns = {name: law[name] for name in ("ceiling", "ceiling_low", "ceiling_high", "state", "exact")}
    columns |= {name: law[name] * unit for name in ("price", "price_low", "price_high")}
    columns["copy"] = each
    table = xr.Dataset(columns).to_dataframe().reset_index()
    table = table[table["state"].isin(KNOWN) & (table["ceiling"].notna() | (table["ceiling_low"] > 0))]
    order = {name: rank for rank, name in enumerate(names)}
    wanted = ["layer", "estimator", *columns]
    return table.sort_values("layer", key=lambda s: s.map(order), kind="stable")[wanted]


def _looks(runs: Any, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Label -> colour and mark."""
    colors: dict[str, str] = {}
    for ds in runs:
        colors |= dict(zip(map(str, ds["estimator"].values), map(str, ds["color"].values), strict=True))
    return {
        label: {"color": colors[label], "marker": MARKERS[rank % len(MARKERS)], "markersize": SIZE}
        for rank, label in enumerate(labels)
    }


def _draw_all(
    tables: Mapping[str, pd.DataFrame],
    names: Sequence[str],
    look: Mapping[str, dict[str, Any]],
    every: pd.DataFrame,
    width: float,
) -> PaperFigure:
    columns = min(len(names), max(round(width / PANEL), 1))
    across = max(int(width * 0.8), 2)
    rows, lines = len(tables) * -(-len(names) // columns), -(-len(look) // across)
    figure = PaperFigure(figsize=(width, ROW * rows + 0.13 * lines + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    low = min(0.0, float(every[["ceiling", "ceiling_low"]].min().min()))
    grid[0][0].set_ylim(max(low, -1) - 0.05, 1.12)
    place = 0
    for row, table in tables.items():
        for start in range(0, len(names), columns):
            line, place = list(grid[place]), place + 1
            for axis, name in zip(line, names[start : start + columns], strict=False):
                _draw(axis, table[table["layer"] == name], every[every["layer"] == name], look)
                axis.set_title(literal(f"{name}, {row}" if row else name))
                despine(axis)
            for axis in line[len(names) - start :]:
                axis.remove()
    handles = [Line2D([], [], ls="none", label=literal(label), **own) for label, own in look.items()]
    where: dict[str, Any] = {"loc": "outside upper center", "ncols": across, "frameon": False}
    figure.legend(handles=handles, fontsize=NOTE_SIZE + 0.5, handletextpad=0.2, **where)
    return figure


def _draw(axis: Axes, table: pd.DataFrame, every: pd.DataFrame, look: Mapping[str, dict[str, Any]]) -> None:
    """One panel; ``every`` holds its layer in all runs, which share the range of prices."""
    prices = every.loc[~every["exact"] & np.isfinite(every["price"]) & (every["price"] > 0), "price"]
    low, high = (prices.min() / 1.6, prices.max() * 1.6) if len(prices) else (1.0, 10.0)
    fixed = list(table.loc[table["exact"], "estimator"])
    step = (high / low) ** 0.04
    count = int(every.groupby("estimator")["exact"].all().sum())
    axis.set_xscale("log")
    axis.set_xlim(low / step ** (count + 1) if count else low, high)
    decades = LogLocator(numticks=4).tick_values(low, high)
    axis.xaxis.set_major_locator(FixedLocator([x for x in decades if low <= x <= high]))
    axis.xaxis.set_minor_locator(NullLocator())
    for height, color in ((1, "0.8"), (0, "0.9")):
        axis.axhline(height, color=color, linewidth=0.5, zorder=0)
    if count:
        axis.axvline(low, color="0.6", linewidth=0.6, ls=":", zorder=0)
    for row in map(dict, table.to_dict("records")):
        own, x, y = look[row["estimator"]], row["price"], _height(row["ceiling"], row["ceiling_low"])
        if row["exact"]:  # side by side: they may be equal
            x = low / step ** (count - fixed.index(row["estimator"]))
        elif np.isfinite(x) and x > 0:
            ends = np.clip([row["price_low"], row["price_high"]], low, high)
            axis.plot(ends, [y, y], color=own["color"], linewidth=0.6, zorder=1, gid="price")
        else:
            continue
        ends = np.clip([row["ceiling_low"], row["ceiling_high"]], -1, 1.12)
        axis.plot([x, x], ends, color=own["color"], linewidth=0.6, zorder=1, gid="ceiling")
        face = own["color"] if np.isfinite(row["ceiling"]) else "white"
        style: dict[str, Any] = {"ls": "none", "markerfacecolor": face, "markeredgewidth": 0.6, "zorder": 2}
        axis.plot(x, y, gid=row["estimator"], **style, **own)


def _height(ceiling: float, low: float) -> float:
    """The ceiling, or its lower bound."""
    return float(np.clip(ceiling if np.isfinite(ceiling) else low, -1, 1.12))


def _caption(runs: Mapping[str, xr.Dataset], every: pd.DataFrame, against: str, reference: str) -> str:
    sizes = []
    for name, ds in runs.items():
        size = f"{ds.sizes['seed']} seeds x {int(ds['copies'].values[-1])} copies, this batch of"
        sizes.append(f"{f'{name}: ' if name else ''}{size} {ds.attrs.get('batch_size', '?')} samples")
    said = [
        f"Ceiling against {AGAINST[against]}, one point for each layer and method (reference {reference}; "
        f"{'; '.join(sizes)}). Lines: 95 % intervals over seeds, pointwise."
    ]
    if every["exact"].any():
        said.append("Left of the dotted line: methods without noise, which have no price.")
    if (~np.isfinite(every["ceiling"])).any():
        said.append("Open marks: lower bound of a ceiling of which only bounds are known.")
    said.append("Where not even the sign is known there is no point; panels differ in the prices shown.")
    said.append("A ceiling above 1 is noise.")
    prices = [stats.cost(ds) for ds in runs.values()]
    if against == "equivalents" and any(bool((p["shared"] & p["stochastic"]).any()) for p in prices):
        said.append("Where one copy serves all layers (joint injection), every layer has the cost of all.")
    return " ".join(said)
