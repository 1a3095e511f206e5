"""Acc. and Sta. of every method (ALR paper, Table 4).

Probes a checkpoint (or opens a run) and prints Acc. and Sta. beside what the paper does not report: the Sta.
that curvature alone gives, the ceiling and the half-power copies. Writes the tables as CSV.

    python analyses/acc_sta_table.py --checkpoint trained --out figures/acc_sta
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import gradprobe as gp
from gradprobe.report.text import show, write


def main(
    model: Annotated[str, typer.Option(help="Network, by name.")] = "resnet5",
    checkpoint: Annotated[str, typer.Option(help="Weights: a file, or early or trained.")] = "trained",
    data: Annotated[str, typer.Option(help="Data, by name.")] = "digits",
    batch_size: Annotated[int, typer.Option(help="Samples in the batch.")] = 32,
    estimators: Annotated[str, typer.Option(help="Comma-separated.")] = "lr,alr,es,aes,hybrid,a-hybrid",
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 5,
    run: Annotated[Path | None, typer.Option(help="Tabulate this run instead of probing.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the CSV files.")] = Path("figures/acc_sta"),
    smoke: Annotated[bool, typer.Option("--smoke", help="40 copies, 3 seeds.")] = False,
) -> None:
    """Probe and tabulate."""
    if run is not None:
        ds = gp.open_run(run)
    else:
        problem = gp.load_problem(model, checkpoint, data, batch_size)
        copies, seeds = (40, 3) if smoke else (copies, seeds)
        ds = gp.probe(problem, estimators, copies=copies, seeds=seeds)
    show(ds, Console(width=120))
    for file in write(ds, out):
        print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
