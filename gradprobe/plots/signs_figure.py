"""What signs cost: ceilings and prices of each encoding, and how much of Sta. is curvature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradprobe import stats
from gradprobe.core.errors import UsageError, unknown
from gradprobe.plots import register
from gradprobe.plots._save import finish, made_from
from gradprobe.plots._style import NOTE_SIZE, PaperFigure, despine, inches, paper

ENCODINGS = {
    "lr": ("LR", "#E69F00", "o"),
    "lr(encode=sign-noise)": ("sign of the noise", "#1A2440", "^"),
    "lr(encode=sign-input)": ("sign of the input", "#6DB3DE", "v"),
    "alr": ("both: ALR", "#009E73", "s"),
}
"""Label of the read-out -> its name, colour and marker; LR and ALR look as everywhere."""
PAIR = {"hybrid": "#000000", "a-hybrid": "#56B4E9"}
ROWS = ("ceiling", "price / LR's", "Sta. / ceiling")


@register(
    "signs", summary="ceilings and prices of LR's encodings by layer, and the share of Sta. that is curvature"
)
def signs(
    runs: Mapping[str, xr.Dataset], *, width: str | float = "double", save: str | Path | None = None
) -> PaperFigure:
    """Draw what the sign of the noise and the sign of the input cost, one column for each run.

    First row: ceiling against backprop with its 95 % interval (a bar without a mark: only bounds are known).
    Second: price relative to LR's in the same layer, from the same noise; dashed: pi/2, what the sign of Gaussian
    noise costs. Third: Sta. of Hybrid and A-Hybrid, each divided by its ceiling, so that both curves end at 1;
    filled up to the floor, which a noiseless curve has too.

    Args:
        runs: Name of a column -> results that hold ``lr``, ``lr(encode=sign-noise)``, ``lr(encode=sign-input)``,
            ``alr``, ``hybrid`` and ``a-hybrid``.
        width: ``double`` (7 inches), ``single`` (3.4 inches), or inches.
        save: Path without ending: writes .png, .pdf and .json.

    Returns:
        The figure, with ``gradprobe_caption`` and ``gradprobe_record``.

    Raises:
        UsageError: There is no run, or one lacks an estimator.
    """
    if isinstance(runs, xr.Dataset) or not isinstance(runs, Mapping) or not runs:
        raise UsageError("signs needs runs by name, such as {'trained': ds}.")
    tables = {name: _numbers(ds) for name, ds in runs.items()}
    with paper():
        figure = PaperFigure(figsize=(inches(width), 4.6), layout="constrained")
        grid = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False)
        for column, (name, table) in enumerate(tables.items()):
            _draw_encodings(grid[0][column], table, "ceiling")
            _draw_encodings(grid[1][column], table, "ratio")
            _draw_stability(grid[2][column], table)
            grid[0][column].set_title(str(name))
            layers = list(dict.fromkeys(table["layer"]))
            grid[2][column].set(xticks=range(len(layers)), xlabel="layer", xlim=(-0.6, len(layers) - 0.4))
            grid[2][column].set_xticklabels(layers, rotation=90 if len(layers) > 8 else 0)
        for line, label in zip(grid, ROWS, strict=True):
            line[0].set_ylabel(label)
            line[0].set_ylim(bottom=0)  # after all of the row is drawn, which shares it
            for axis in line:
                despine(axis)
        _legend(figure)
    figure.gradprobe_caption = _caption(runs)
    record: dict[str, Any] = {"figure": "signs", "caption": figure.gradprobe_caption}
    record |= {"runs": {k: {"table": tables[k].to_dict("list")} | made_from(ds) for k, ds in runs.items()}}
    return finish(figure, record, save)


def _numbers(ds: xr.Dataset) -> pd.DataFrame:
    """One row for each layer and method that is shown."""
    known = [str(e) for e in ds["estimator"].values]
    for label in (*ENCODINGS, *PAIR):
        if label not in known:
            raise unknown("estimator", label, known)
    law, names = stats.alignment(ds), ["ceiling", "ceiling_low", "ceiling_high", "price", "state"]
    columns = {name: law[name].to_series() for name in names}
    columns["Sta."] = stats.stability(ds).mean("seed").to_series()
    columns["floor"] = stats.stability_floor(ds).to_series()
    table = pd.DataFrame(columns)
    base = table["price"].xs("lr").rename("base")
    table = table.join(base, on="layer")
    table["ratio"] = table["price"] / table.pop("base")
    table["ceiling"] = table["ceiling"].where(table["state"] == "resolved")
    order = law["layer"].values
    return table.reset_index().sort_values("layer", key=lambda s: s.map(list(order).index), kind="stable")


def _draw_encodings(axis: Axes, table: pd.DataFrame, name: str) -> None:
    layers = list(dict.fromkeys(table["layer"]))
    for rank, (label, (_, color, marker)) in enumerate(ENCODINGS.items()):
        mine = table[table["estimator"] == label]
        at = np.array([layers.index(layer) for layer in mine["layer"]]) + 0.17 * (rank - 1.5)
        if name == "ceiling":
            ends = mine[["ceiling_low", "ceiling_high"]].clip(0, 1.1).to_numpy()
            axis.vlines(at, ends[:, 0], ends[:, 1], color=color, linewidth=0.9, gid="interval")
        axis.plot(at, mine[name], ls="none", marker=marker, color=color, markersize=3.2, gid=label)
    if name == "ceiling":
        axis.axhline(1, color="0.8", linewidth=0.5, zorder=0)
        axis.set_ylim(0, 1.12)
    else:
        axis.axhline(1, color="0.8", linewidth=0.5, zorder=0)
        axis.axhline(np.pi / 2, color="0.5", linewidth=0.6, ls=(0, (3, 2)), zorder=0)


def _draw_stability(axis: Axes, table: pd.DataFrame) -> None:
    layers = list(dict.fromkeys(table["layer"]))
    for rank, (label, color) in enumerate(PAIR.items()):
        mine = table[table["estimator"] == label]
        at = np.array([layers.index(layer) for layer in mine["layer"]]) + 0.34 * (rank - 0.5)
        whole, least = mine["Sta."] / mine["ceiling"], mine["floor"] / mine["ceiling"]
        axis.bar(at, np.minimum(least, whole), 0.3, color=color, gid=f"{label} floor")
        axis.bar(at, whole, 0.3, facecolor="none", edgecolor=color, linewidth=0.8, gid=f"{label} Sta.")


def _legend(figure: PaperFigure) -> None:
    first: list[Artist] = [
        Line2D([], [], ls="none", marker=marker, color=color, markersize=3.2, label=name)
        for name, color, marker in ENCODINGS.values()
    ]
    second: list[Artist] = [
        Patch(facecolor="none", edgecolor=c, linewidth=0.8, label=label) for label, c in PAIR.items()
    ]
    second += [Patch(color="0.4", label="floor: curvature alone")]
    second += [Line2D([], [], color="0.5", linewidth=0.6, ls=(0, (3, 2)), label="π/2")]
    both = [handle for pair in zip(first, second, strict=True) for handle in pair]
    figure.legend(handles=both, loc="outside upper center", ncols=4, frameon=False, fontsize=NOTE_SIZE + 0.5)


def _caption(runs: Mapping[str, xr.Dataset]) -> str:
    sizes = {
        str(name): f"{ds.sizes['seed']} seeds x {int(ds['copies'].values[-1])} copies, this batch of "
        f"{ds.attrs.get('batch_size', '?')} samples"
        for name, ds in runs.items()
    }
    alike = len(set(sizes.values())) == 1
    size = next(iter(sizes.values())) if alike else "; ".join(f"{k}: {v}" for k, v in sizes.items())
    return (
        f"What signs cost, by layer ({size}). Top: ceiling against backprop, 95 % intervals over seeds; bars "
        "without a mark: bounds only. Middle: price relative to LR's; all four read the same noise. Dashed: pi/2. "
        "Bottom: Sta. over the whole grid divided by the ceiling, outline; filled: the part that the curvature of "
        "a noiseless law has too. Missing bars: the ceiling is not resolved."
    )
