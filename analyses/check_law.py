"""Does the alignment law hold on the shipped checkpoints?

Two checks on each. The law fitted to the first half of the copies predicts the pooled cosine at all copies. The
ceilings of LR and ES, whose target is the smoothed loss, are 1 against the smoothed gradient.

    python analyses/check_law.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import gradprobe as gp

ESTIMATORS = "lr,alr,es,aes,hybrid,a-hybrid"


def probe(checkpoint: str, copies: int, seeds: int, out: Path | None = None) -> xr.Dataset:
    """Probe a shipped checkpoint against both references."""
    problem = gp.load_problem(checkpoint=checkpoint)
    return gp.probe(problem, ESTIMATORS, copies=copies, seeds=seeds, reference="smoothed", out=out)


def predictions(ds: xr.Dataset) -> pd.DataFrame:
    """Pooled cosine at all copies, predicted from half of them and measured, for every layer and method."""
    most = int(ds["copies"][-1])
    half = int(ds["copies"][ds.sizes["copies"] // 2 - 1])
    early, late = gp.stats.alignment(ds, copies=half), gp.stats.alignment(ds)
    guess = gp.stats.predict(early, most)
    columns = ["cosine", "cosine_low", "cosine_high"]
    table = guess[columns].to_dataframe()[columns]
    table["measured"] = gp.stats.predict(late, most)["cosine"].to_series()
    table["state"] = early["state"].to_series()
    table["error"] = table["cosine"] - table["measured"]
    inside = table["measured"].between(table["cosine_low"], table["cosine_high"])
    table["holds"] = (table["error"].abs() <= 0.03) | inside
    return table


def ceilings(ds: xr.Dataset) -> pd.DataFrame:
    """Ceilings of LR and ES against the gradient of the loss that their own noise smooths."""
    law = gp.stats.alignment(ds.sel(estimator=["lr", "es"]), reference="smoothed")
    columns = ["ceiling", "ceiling_low", "ceiling_high", "state"]
    return law[columns].to_dataframe()[columns]


def main(
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Folder that keeps the runs.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="80 copies, 3 seeds.")] = False,
) -> None:
    """Run both checks on both checkpoints and print them."""
    copies, seeds = (80, 3) if smoke else (copies, seeds)
    for checkpoint in ("early", "trained"):
        ds = probe(checkpoint, copies, seeds, None if out is None else out / checkpoint)
        table = predictions(ds)
        resolved = table[table["state"] == "resolved"]
        print(f"\n{checkpoint}: cosine at {copies} copies from the first half\n{table.round(3).to_string()}")
        worst = resolved["error"].abs().max()
        print(
            f"resolved: {len(resolved)}, of which {resolved['holds'].sum()} hold; largest error {worst:.3f}"
        )
        print(f"\n{checkpoint}: ceilings against the smoothed gradient\n{ceilings(ds).round(3).to_string()}")


if __name__ == "__main__":
    typer.run(main)
