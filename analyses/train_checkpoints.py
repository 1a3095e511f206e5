"""Train the two shipped checkpoints: ResNet-5 on digits after one epoch (early) and after thirty (trained).

Adam, learning rate 1e-3, batches of 32 in an order fixed by seed 0. Writes safetensors files whose metadata
hold epochs and accuracies, and prints them.

    python analyses/train_checkpoints.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save_file

from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.data import Data

EPOCHS = {"early": 1, "trained": 30}


def accuracy(model: torch.nn.Module, data: Data) -> float:
    """Share of samples classified correctly."""
    with torch.no_grad():
        return float((model(data.inputs).argmax(1) == data.targets).float().mean())


def main(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("gradprobe/problems/checkpoints"),
    smoke: Annotated[bool, typer.Option("--smoke", help="One batch in each epoch.")] = False,
) -> None:
    """Train and save."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    load = DATASETS.get("digits")
    train, test = load("train"), load("test")
    model = NETWORKS.get("resnet5")(input_shape=train.input_shape, classes=train.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(1, max(EPOCHS.values()) + 1):
        order = torch.randperm(len(train.inputs))
        for batch in order.split(32)[: 1 if smoke else None]:
            optimizer.zero_grad()
            F.cross_entropy(model(train.inputs[batch]), train.targets[batch]).backward()
            optimizer.step()
        for name in [n for n, e in EPOCHS.items() if e == epoch]:
            facts = {"train accuracy": accuracy(model, train), "test accuracy": accuracy(model, test)}
            text = {"network": "resnet5", "data": "digits", "epochs": str(epoch)}
            text |= {k: f"{v:.4f}" for k, v in facts.items()}
            save_file(model.state_dict(), out / f"resnet5-digits-{name}.safetensors", metadata=text)
            print(f"{name}: epoch {epoch}, " + ", ".join(f"{k} {v:.1%}" for k, v in facts.items()))


if __name__ == "__main__":
    typer.run(main)
