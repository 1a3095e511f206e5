"""Does ALR take a better path than LR on Beale's function (ALR paper, Fig. 6)?

First figure: the paper's, from (-3, 2), with one rate for BP, LR and ALR. Last figure: the same question when
every method has a learning rate of its own, tuned on other noise (and, for the grid, from other starts), under
four rules of descent, over 100 seeds, from (-3, 2) and from a grid of starts. A walker has arrived if it stays within
1 % of the domain's diagonal from the minimum.

    python analyses/beale_trajectories.py --out figures
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import xarray as xr

import gradprobe as gp

METHODS = ["bp", "lr", "alr"]
START = (-3.0, 2.0)
RULES: dict[str, dict[str, Any]] = {
    "SGD": {},
    "SGD, projected": {"bounds": "project"},
    "SGD, normalised": {"step": "normalised"},
    "Adam": {"optimizer": "adam"},
}


def summary(path: xr.Dataset) -> pd.DataFrame:
    """What became of the walkers of each method."""
    arrived = gp.stats.success(path, stay=True)
    table = arrived[["rate", "rate_low", "rate_high", "diverged", "steps", "forwards"]].to_pandas()
    table = table[["rate", "rate_low", "rate_high", "diverged", "steps", "forwards"]]
    table.insert(0, "lr", path["lr"].values)
    last = gp.stats.progress(path).isel(step=-1)
    return table.assign(
        loss=last["loss"].values, loss_low=last["loss_low"].values, loss_high=last["loss_high"].values
    )


def contests(paths: dict[str, xr.Dataset], first: str, second: str) -> pd.DataFrame:
    """Paired differences between two methods under each rule."""
    rows = {}
    for name, path in paths.items():
        found = gp.stats.difference(path, first, second, stay=True)
        rows[name] = {
            key: f"{float(found[key]):+.3f} [{float(found[f'{key}_low']):+.3f}, {float(found[f'{key}_high']):+.3f}]"
            for key in ("success", "earlier", "lower")
        }
    return pd.DataFrame(rows).T


def tuned(where: str, **options: Any) -> dict[str, xr.Dataset]:
    """Descents under each rule with rates of each method's own."""
    paths = {}
    for name, rule in RULES.items():
        began = time.perf_counter()
        path = gp.descend("beale", METHODS, lr="tuned", **options, **rule)
        paths[f"{name}\n{where}"] = path
        print(f"\n{name} {where} ({time.perf_counter() - began:.0f} s)\n{summary(path).round(4).to_string()}")
    return paths


def at_equal_gain(one: xr.Dataset, lr: float) -> None:
    """How far apart the mean paths of LR and ALR are when ALR's rate makes up for its length."""
    rates = {"bp": lr, "lr": lr, "alr": lr / float(one["shrinks"].sel(estimator="alr"))}
    path = gp.descend(
        "beale", METHODS, start=START, seeds=one["seed"].values, steps=int(one["step"][-1]), lr=rates
    )
    mean, spread = path["position"].mean("seed"), path["position"].std("seed")
    apart = mean.sel(estimator="alr") - mean.sel(estimator="lr")
    distance = float((apart**2).sum("coordinate").max() ** 0.5)
    wide = {e: float((spread.sel(estimator=e) ** 2).sum("coordinate").max() ** 0.5) for e in ("lr", "alr")}
    print(f"\nequal gain, ALR's rate {rates['alr']:.4g}\n{summary(path).round(4).to_string()}")
    print(f"largest distance between mean paths of LR and ALR {distance:.3g}; largest spread {wide}")


def main(
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 100,
    steps: Annotated[int, typer.Option(help="Steps of each walker.")] = 1000,
    grid: Annotated[int, typer.Option(help="Starts for each variable.")] = 10,
    lr: Annotated[float, typer.Option(help="The one learning rate of the first figure.")] = 1e-4,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("figures"),
    smoke: Annotated[bool, typer.Option("--smoke", help="3 seeds, 40 steps, 2 x 2 starts.")] = False,
) -> None:
    """Make both figures and print the numbers behind them."""
    seeds, steps, grid = (3, 40, 2) if smoke else (seeds, steps, grid)
    began = time.perf_counter()
    one = gp.descend("beale", METHODS, start=START, seeds=seeds, steps=steps, lr=lr)
    print(
        f"one learning rate, {lr:g} ({time.perf_counter() - began:.1f} s)\n{summary(one).round(4).to_string()}"
    )
    gp.plots.trajectory(one, save=out / "beale_paths")
    at_equal_gain(one, lr)
    options: dict[str, Any] = {"seeds": seeds, "steps": steps, "rates": [1e-4, 1e-2] if smoke else None}
    single = tuned("from (-3, 2)", start=START, criterion="loss", tuning_seeds=seeds, **options)
    gp.plots.trajectory(single["SGD\nfrom (-3, 2)"], save=out / "beale_paths_tuned")
    tries = {"criterion": "steps", "tuning_seeds": min(20, seeds), "every": max(steps // 100, 1)}
    many = tuned(f"from {grid} x {grid} starts", start=grid, **tries, **options)
    gp.plots.basins(many[f"SGD, normalised\nfrom {grid} x {grid} starts"], save=out / "beale_basins")
    paths = single | many
    gp.plots.versus(paths, "alr", "lr", stay=True, save=out / "beale_answer")
    print(f"\npaired differences, ALR minus LR\n{contests(paths, 'alr', 'lr').to_string()}")
    print(f"\npaired differences, ALR minus BP\n{contests(paths, 'alr', 'bp').to_string()}")
    for name in ("beale_paths", "beale_paths_tuned", "beale_basins", "beale_answer"):
        print(f"wrote {out / name}.png, .pdf and .json")


if __name__ == "__main__":
    typer.run(main)
