"""Train the two shipped checkpoints: ResNet-5 on digits after one epoch (early) and after thirty (trained).

Adam, learning rate 1e-3, batches of 32 in an order fixed by seed 0. Writes safetensors files whose metadata
hold epochs and accuracies, and prints them.

    python analyses/train_checkpoints.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.training import accuracy, train

EPOCHS = {"early": 1, "trained": 30}


def main(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("gradprobe/problems/checkpoints"),
    smoke: Annotated[bool, typer.Option("--smoke", help="One batch in each epoch.")] = False,
) -> None:
    """Train and save."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    load = DATASETS.get("digits")
    data, test = load("train"), load("test")
    model = NETWORKS.get("resnet5")(input_shape=data.input_shape, classes=data.classes)
    steps = train(model, data, max(EPOCHS.values()), batches=1 if smoke else None)
    for epoch, _ in enumerate(steps, start=1):
        for name in [n for n, e in EPOCHS.items() if e == epoch]:
            facts = {"train accuracy": accuracy(model, data), "test accuracy": accuracy(model, test)}
            text = {"network": "resnet5", "data": "digits", "epochs": str(epoch)}
            text |= {k: f"{v:.4f}" for k, v in facts.items()}
            save_file(model.state_dict(), out / f"resnet5-digits-{name}.safetensors", metadata=text)
            print(f"{name}: epoch {epoch}, " + ", ".join(f"{k} {v:.1%}" for k, v in facts.items()))


if __name__ == "__main__":
    typer.run(main)
