"""Train each network on small data that fit it, with plain backprop: checkpoints to probe.

Adam, batches of 32 in an order fixed by seed 0; all together under a minute on one core. Writes safetensors files
whose metadata hold data, options, epochs and accuracies, and prints them. A network whose extra is not installed
is left out, with the command that installs it.

    python analyses/train_networks.py --out checkpoints
    gradprobe probe --model lstm --data words --checkpoint checkpoints/lstm-words.safetensors ...
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from safetensors.torch import save_file

from gradprobe.core.errors import UsageError
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.build import build
from gradprobe.problems.training import accuracy, train


class Recipe(NamedTuple):
    """How a network is trained."""

    model: str
    data: str
    epochs: int
    rate: float
    options: dict[str, Any]


RECIPES = (
    Recipe("resnet9", "digits", 8, 1e-3, {}),
    Recipe("resnet12", "digits", 8, 1e-3, {}),
    Recipe("lstm", "words", 4, 5e-3, {}),
    Recipe("attention", "digits", 15, 2e-3, {}),
    Recipe("gat", "communities", 40, 1e-2, {}),
    Recipe("snn", "digits", 6, 2e-3, {}),
)


def save_trained(recipe: Recipe, out: Path, smoke: bool) -> None:
    """Train one network, write its weights and print its accuracies.

    Raises:
        UsageError: Its extra is not installed.
    """
    start = time.perf_counter()
    load = DATASETS.get(recipe.data)
    data, test = load("train"), load("test")
    torch.manual_seed(0)
    model = build(recipe.model, NETWORKS.get(recipe.model), data.offers, recipe.options, recipe.data)
    epochs = 1 if smoke else recipe.epochs
    for _ in train(model, data, epochs, rate=recipe.rate, batches=2 if smoke else None):
        pass
    found = {"train accuracy": accuracy(model, data), "test accuracy": accuracy(model, test)}
    text = {"network": recipe.model, "data": recipe.data, "epochs": str(epochs)}
    text |= {"options": json.dumps(recipe.options)} | {k: f"{v:.4f}" for k, v in found.items()}

    save_file(model.state_dict(), out / f"{recipe.model}-{recipe.data}.safetensors", metadata=text)
    told = ", ".join(f"{k} {v:.1%}" for k, v in found.items())
    seconds = time.perf_counter() - start
    print(f"{recipe.model} on {recipe.data}: epoch {epochs}, {told} ({seconds:.1f} s)")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("checkpoints"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Two batches each.")] = False,
) -> None:
    """Train and save each network."""
    out.mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        try:
            save_trained(recipe, out, smoke)
        except UsageError as error:
            print(f"{recipe.model}: left out; {error}")


if __name__ == "__main__":
    typer.run(main)
