"""Cosine similarity of every layer against copies (ALR paper, Fig. 5).

Probes a checkpoint (or opens a run) and draws the cosine similarity of every layer against copies.

    python analyses/layer_similarity.py --checkpoint trained --out figures/layer_similarity
    python analyses/layer_similarity.py --run runs/mine --out figures/mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gradprobe as gp


def main(
    model: Annotated[str, typer.Option(help="Network, by name.")] = "resnet5",
    checkpoint: Annotated[str, typer.Option(help="Weights: a file, or early or trained.")] = "trained",
    data: Annotated[str, typer.Option(help="Data, by name.")] = "digits",
    batch_size: Annotated[int, typer.Option(help="Samples in the batch.")] = 32,
    estimators: Annotated[str, typer.Option(help="Comma-separated.")] = "hybrid,a-hybrid",
    copies: Annotated[int, typer.Option(help="Monte-Carlo copies.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions; the paper has 10.")] = 10,
    run: Annotated[Path | None, typer.Option(help="Draw this run instead of probing.")] = None,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/layer_similarity"),
    smoke: Annotated[bool, typer.Option("--smoke", help="40 copies, 3 seeds.")] = False,
) -> None:
    """Probe and draw."""
    if run is not None:
        ds = gp.open_run(run)
    else:
        problem = gp.load_problem(model, checkpoint, data, batch_size)
        copies, seeds = (40, 3) if smoke else (copies, seeds)
        ds = gp.probe(problem, estimators, copies=copies, seeds=seeds)
    gp.plots.similarity(ds, save=out)
    print(f"wrote {out}.png, {out}.pdf and {out}.json")


if __name__ == "__main__":
    typer.run(main)
