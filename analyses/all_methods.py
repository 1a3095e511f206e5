"""What can each method reach, and at what price?

Every registered method that estimates gradients of weights, on both shipped checkpoints of ResNet-5: its ceiling in
each layer (the cosine with backprop that no number of copies passes) against the price of getting there.

    python analyses/all_methods.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import gradprobe as gp

APART = ("planned", "noise-level", "sign")
"""Registered, but no methods by themselves: they need a plan, estimate something else, or wrap another."""
FURTHER = ("lr(noise=sobol)", "sign(bp)", "sign(fa)", "sign(hsic)")


def chosen() -> list[str]:
    """The registered methods, and some that are written with options."""
    names = [str(name) for name in gp.list_estimators().index if name not in APART]
    return [*names, *FURTHER]


def table(ds: xr.Dataset) -> pd.DataFrame:
    """One row for each method and layer."""
    law, cost = gp.stats.alignment(ds), gp.stats.cost(ds)["equivalents"]
    names = ["state", "ceiling", "ceiling_low", "ceiling_high", "half_copies", "price", "gain"]
    found = law[names].assign(copy=cost).to_dataframe()[[*names, "copy"]].reset_index()
    return found.assign(forwards=found["price"] * found["copy"])


def main(
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 5,
    runs: Annotated[Path | None, typer.Option(help="Folder that keeps the runs.")] = None,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/all_methods"),
    smoke: Annotated[
        bool, typer.Option("--smoke", help="20 copies, 3 seeds, 8 samples, one checkpoint.")
    ] = False,
) -> None:
    """Probe the shipped checkpoints with every method, print the table and draw the figure."""
    copies, seeds, samples = (20, 3, 8) if smoke else (copies, seeds, 32)
    found, rows = {}, {}
    for checkpoint in ("trained",) if smoke else ("early", "trained"):
        problem = gp.load_problem(checkpoint=checkpoint, batch_size=samples)
        where = None if runs is None else runs / checkpoint
        found[checkpoint] = gp.probe(problem, chosen(), copies=copies, seeds=seeds, out=where)
        rows[checkpoint] = table(found[checkpoint])
        print(f"\n{checkpoint}\n{rows[checkpoint].round(3).to_string(index=False)}")
    every = found["trained"]["estimator"].values
    ranks = list(gp.list_estimators().index)
    gp.plots.methods(
        found, estimators=sorted(every, key=lambda label: ranks.index(label.partition("(")[0])), save=out
    )
    pd.concat(rows, names=["checkpoint"]).reset_index("checkpoint").to_csv(f"{out}.csv", index=False)
    print(f"\nwrote {out}.png, {out}.pdf, {out}.json and {out}.csv")


if __name__ == "__main__":
    typer.run(main)
