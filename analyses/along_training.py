"""What does the quality of an estimate do along training? ResNet-5 on digits, from random weights to epoch 30.

The network is trained by backprop as the shipped checkpoints are (Adam, learning rate 1e-3, batches of 32 in an
order fixed by seed 0); its weights before training and after some epochs are kept, and lr, alr and es probed at
each on the same batch (of 32, sigma 0.01) with the same noise.

Quality is best in the middle, and how much training matters differs by method. lr's cosine of the whole model after
1,000 copies is 0.82 at random weights, 0.86 after epoch 1, 0.97 after epoch 3 and 0.96 and 0.92 after epochs 10 and
30; its price is 436, 338, 59, 90 and 169 copies. Of the five, epoch 3 has the longest gradient (|g|^2 28; 0.04 at
both ends); that this is the cause is not shown. es moves less (0.51, 0.43, 0.59, 0.59, 0.56; price between 1,800
and 4,300): what it pays is set by numbers of weights, which training leaves alone; only in the last layer it
worsens all along (0.87 to 0.65). alr's bias depends on the stage: in the last layer its ceiling is 0.55 at random
weights, 0.75 after epoch 1 and 0.87 to 0.88 from epoch 3 on, in conv4 0.51, 0.64 and 0.87 after epochs 0, 1 and 3;
its cosine over the whole model, with layers' own gains, rises from 0.40 to 0.55 and falls to 0.28. At random
weights the whole model's ceilings of lr and es are 0.97 (0.947 to 0.997, and 0.957 to 0.977), below 1; later their
intervals hold 1. Not resolved are ceilings of alr in conv1 (epoch 10), conv2 (10, 30), conv3 (0, 30), conv4 (10)
and the model (30), of lr in conv2 (10) and conv4 (0). One training and one batch: nothing is said of others.
Measured on two shared cores: 161 s of processor time.

Every checkpoint has a run directory: after a kill the same call goes on.

    python analyses/along_training.py --out figures/along_training --runs runs/along_training
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
import xarray as xr
from safetensors.torch import save_file

import gradprobe as gp
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.training import accuracy, train

EPOCHS = (0, 1, 3, 10, 30)
METHODS = ("lr", "alr", "es")
COPIES, SEEDS = 1000, 5
"""The shipped run of the trained checkpoint resolves the ceilings of lr and es in every layer with these."""


def main(
    out: Annotated[Path, typer.Option(help="Stem of the figures.")] = Path("figures/along_training"),
    runs: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and runs; OUT-runs by default.")
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Few batches, epochs and copies.")] = False,
) -> None:
    """Train, probe at each checkpoint, print a table and draw."""
    folder = runs or out.with_name(f"{out.name}-runs")
    epochs = EPOCHS[:2] if smoke else EPOCHS
    facts = keep_checkpoints(folder, epochs, smoke)
    ds = gp.concat([probed(folder, epoch, smoke) for epoch in epochs], labels=epochs)
    print(table(ds).join(facts, on="epoch").to_string(index=False))
    label = "Epochs of training by backprop"
    gp.plots.training(ds, xlabel=label, save=out)
    gp.plots.training(ds, "ceiling", xlabel=label, save=out.with_name(f"{out.name}_ceiling"))


def checkpoint(folder: Path, epoch: int) -> Path:
    """Where the weights after an epoch are."""
    return folder / f"resnet5-digits-epoch-{epoch}.safetensors"


def keep_checkpoints(folder: Path, epochs: tuple[int, ...], smoke: bool) -> pd.DataFrame:
    """Train and save the weights after each of the epochs; their accuracies by epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data, test = (DATASETS.get("digits")(split) for split in ("train", "test"))
    model = NETWORKS.get("resnet5")(input_shape=data.input_shape, classes=data.classes)
    steps = train(model, data, max(epochs), batches=2 if smoke else None)
    rows = {}
    for epoch in range(max(epochs) + 1):
        if epoch:
            next(steps)
        if epoch in epochs:
            rows[epoch] = {"train accuracy": accuracy(model, data), "test accuracy": accuracy(model, test)}
            save_file(model.state_dict(), checkpoint(folder, epoch))
    return pd.DataFrame.from_dict(rows, orient="index")


def probed(folder: Path, epoch: int, smoke: bool) -> xr.Dataset:
    """The run of one checkpoint."""
    problem = gp.load_problem(
        model="resnet5", checkpoint=checkpoint(folder, epoch), data="digits", batch_size=32
    )
    copies, seeds = (20, 3) if smoke else (COPIES, SEEDS)
    return gp.probe(problem, METHODS, copies=copies, seeds=seeds, block=10, out=folder / f"epoch-{epoch}")


def table(ds: xr.Dataset) -> pd.DataFrame:
    """Cosine, ceiling and price of every layer and the model at each epoch."""
    last = int(ds["copies"].values[-1])
    rows = []
    for over in ("layer", "model"):
        cosine = gp.stats.cosine(ds, over).sel(copies=last).mean("seed")
        law = gp.stats.alignment(ds, over)
        for epoch in ds["checkpoint"].values:
            for part in law["layer"].values if over == "layer" else [over]:
                for method in METHODS:
                    at = {"checkpoint": epoch, "estimator": method} | (
                        {"layer": part} if over == "layer" else {}
                    )
                    one = law.sel(at)
                    row = {"epoch": epoch, "layer": part, "method": method, "cosine": float(cosine.sel(at))}
                    names = ("ceiling", "ceiling_low", "ceiling_high", "price", "price_low", "price_high")
                    rows.append(row | {k: float(one[k]) for k in names} | {"state": str(one["state"].values)})
    numbers = pd.DataFrame(rows)
    about = pd.DataFrame({"epoch": ds["checkpoint"], "loss": ds["loss_of_run"], "|g|^2": ds["sqnorm_of_run"]})
    return numbers.merge(about, on="epoch").round(4)


if __name__ == "__main__":
    typer.run(main)
