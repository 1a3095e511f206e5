"""How does the cost of a capture grow with layers, copies, batch and width?

ResNet-5 at 3x32x32, LR in all layers, one thread. From a batch of 16, width 8, 5 layers and 200 copies one factor is
varied at a time. Beside the capture: its noise alone, and its noise-free suffix forwards alone.

    python analyses/cost_growth.py --out figures/cost_growth
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from bench_capture import begin, make_problem, suffixes

import gradprobe as gp
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import unit_noise

BASE = {"layers": 5, "copies": 200, "batch": 16, "width": 8}
NAMES = ("conv1", "conv2", "conv3", "conv4", "fc")
GRID = {
    "layers": ("layers, from the last", (1, 2, 3, 4, 5)),
    "copies": ("copies", (50, 100, 200, 400, 800)),
    "batch": ("batch, samples", (4, 8, 16, 32, 64)),
    "width": ("width, channels", (4, 8, 16, 32)),
}
FEW = {"layers": (1, 2), "copies": (10, 20), "batch": (4, 8), "width": (4, 8)}
"""Values of a smoke run."""


def times(layers: int, copies: int, batch: int, width: int, repeats: int) -> dict[str, float]:
    """Seconds of a capture, of its noise and of its noise-free forwards: medians."""
    problem = make_problem(batch, width)
    chosen = NAMES[-layers:]
    options = {"copies": copies, "seeds": 1, "sigma": 0.01, "keep": "moments", "layers": list(chosen)}
    engine = "loop graph channels_last x10"
    layout = torch.channels_last
    net = copy.deepcopy(problem.module).to(memory_format=layout)

    def capture() -> None:
        gp.probe(problem, "lr", engine=engine, **options)

    def noise() -> None:
        for name in chosen:
            for k in range(copies):
                unit_noise(Gaussian(), 7, tuple(parts[name][0].shape), range(k, k + 1))

    def forwards() -> None:
        for name in chosen:
            h, after = parts[name]
            for _ in range(copies):
                F.cross_entropy(after(h), problem.target, reduction="none")

    found: dict[str, list[float]] = {"capture": [], "suffix forwards": [], "noise": []}
    with torch.no_grad():
        parts = suffixes(net, problem.inputs.contiguous(memory_format=layout))
        gp.probe(problem, "lr", engine=engine, **options | {"copies": 10})  # to warm up
        for _ in range(repeats):
            for name, part in zip(found, (capture, forwards, noise), strict=True):
                start = time.perf_counter()
                part()
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def main(
    repeats: Annotated[int, typer.Option(help="Repeats of each time.")] = 3,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/cost_growth"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Two values of each factor, once.")] = False,
) -> None:
    """Measure and draw."""
    begin()
    rows = []
    for factor, (label, values) in GRID.items():
        for value in FEW[factor] if smoke else values:
            settings = BASE | ({"copies": 20} if smoke else {}) | {factor: value}
            for part, seconds in times(**settings, repeats=1 if smoke else repeats).items():
                rows.append({"factor": label, "value": value, "part": part, "seconds": seconds})
    table = pd.DataFrame(rows)
    print(table.pivot_table(index=["factor", "value"], columns="part", values="seconds").round(3).to_string())
    gp.plots.growth(table, save=out)
    print(f"wrote {out}.png, {out}.pdf and {out}.json")


if __name__ == "__main__":
    typer.run(main)
