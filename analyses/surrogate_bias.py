"""Are surrogate gradients right? How far they point from the gradient of the smoothed loss.

A spiking network is not differentiable; backprop takes a surrogate's derivative for the threshold's. LR needs no
derivative: its mean is the gradient of the loss smoothed by the noise, so its ceiling against a surrogate gradient
is the cosine of the two. A surrogate changes the backward pass alone: for the same weights all of them are held
against the same LR directions, bitwise (and the last layer, behind no threshold, is probed for the first surrogate
only: none has a part in its gradient). Beside the surrogate gradient itself (``bp``) stands its mean over the same
noise (``smoothed``). Stages: untrained; trained (one checkpoint, by the first surrogate); own (each trained by
itself); untrained with fewer and more time steps. Every cell is a run directory: after a kill the same call goes on.

    python analyses/surrogate_bias.py --out figures/surrogate_bias --runs runs/surrogate_bias
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr
from safetensors.torch import save_file

import gradprobe as gp
from gradprobe.problems import DATASETS
from gradprobe.problems.training import accuracy, train

NETWORK, DATA, EPOCHS, RATE = "snn", "digits", 6, 2e-3
SURROGATES = (("fast_sigmoid", 25.0), ("fast_sigmoid", 5.0), ("atan", 2.0), ("sigmoid", 25.0))
SURROGATES += (("straight-through", None),)
SIGMAS = {0.1: 1, 0.5: 1, 0.02: 3}
"""Standard deviation of the noise -> how many times the copies: kappa grows as sigma falls."""
MIDDLE = 0.1
DRAWN = ("untrained", "trained")
HIDDEN, LAST = ("linears.0", "linears.1"), "linears.2"
"""The layers whose output goes through a threshold, and the one whose does not."""
STEPS, OTHER_STEPS = 8, (4, 25)
BATCH, BLOCK, REFERENCE_COPIES = 32, 50, 100
NUMBERS = ("ceiling", "ceiling_low", "ceiling_high", "half_copies", "price", "gain", "gain_low", "gain_high")


class Cell(NamedTuple):
    """One probe: which weights, which surrogate, how much noise."""

    stage: str
    surrogate: str
    slope: float | None
    sigma: float
    steps: int = STEPS

    @property
    def method(self) -> str:
        """The surrogate and its slope."""
        return self.surrogate.replace("_", " ") + (f", {self.slope:g}" if self.slope else "")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are probed."""
        return (*HIDDEN, LAST) if (self.surrogate, self.slope) == SURROGATES[0] else HIDDEN

    @property
    def name(self) -> str:
        """Name of its run."""
        stage = self.stage.replace(" ", "-")
        return f"{stage}-{self.surrogate}-{self.slope or 'plain'}-{self.sigma:g}"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the network."""
        return {"surrogate": self.surrogate, "slope": self.slope, "steps": self.steps}


def cells(smoke: bool) -> Iterator[Cell]:
    """The grid; then at the middle sigma ``own``, where it is not the common checkpoint, and other time steps."""
    sigmas = (MIDDLE,) if smoke else SIGMAS
    for stage in DRAWN:
        for sigma in sigmas:
            for surrogate in SURROGATES[:2] if smoke else SURROGATES:
                yield Cell(stage, *surrogate, sigma)
    for surrogate in () if smoke else SURROGATES[1:]:
        yield Cell("own", *surrogate, MIDDLE)
    for steps in () if smoke else OTHER_STEPS:
        for surrogate in SURROGATES:
            yield Cell(f"untrained {steps} steps", *surrogate, MIDDLE, steps)


def checkpoint(cell: Cell, runs: Path, smoke: bool) -> Path | None:
    """The weights of a cell; trained and written if they are not there yet."""
    if cell.stage.startswith("untrained"):
        return None
    options = (cell if cell.stage == "own" else Cell("trained", *SURROGATES[0], cell.sigma)).options
    file = runs / f"{options['surrogate']}-{options['slope'] or 'plain'}.safetensors"
    if not file.exists():
        problem = gp.load_problem(NETWORK, None, DATA, BATCH, model_args=options)
        module, data, test = problem.module, DATASETS.get(DATA)("train"), DATASETS.get(DATA)("test")
        order = torch.Generator().manual_seed(0)
        for _ in train(
            module, data, 1 if smoke else EPOCHS, rate=RATE, batches=2 if smoke else None, generator=order
        ):
            pass
        found = (
            f"{accuracy(module, data):.1%} of the training and {accuracy(module, test):.1%} of the test data"
        )
        print(f"{file.name}: {found} are right", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_suffix(".part")
        save_file(module.state_dict(), whole)
        whole.replace(file)
    return file


def measure(cell: Cell, runs: Path, copies: int, seeds: int, workers: int, smoke: bool) -> xr.Dataset:
    """Probe one cell, or open what there is of it."""
    weights = checkpoint(cell, runs, smoke)
    problem = gp.load_problem(NETWORK, weights, DATA, BATCH, model_args=cell.options)
    return gp.probe(
        problem,
        "lr",
        copies=copies * SIGMAS[cell.sigma],
        seeds=seeds,
        layers=cell.layers,
        block=10 if smoke else BLOCK,
        sigma=cell.sigma,
        reference=["bp", "smoothed"],
        smoothed_by="pathwise",  # the mean of the surrogate gradient is what is asked for
        reference_copies=4 if smoke else REFERENCE_COPIES,
        engine="tile",
        workers=workers if workers > 1 else None,
        out=runs / cell.name,
    )


def rows(cell: Cell, ds: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows of the table: one for each reference and layer."""
    for reference in ("bp", "smoothed"):
        law = gp.stats.alignment(ds, reference=reference).isel(estimator=0)
        for layer in cell.layers:
            mine = law.sel(layer=layer)
            row = {"stage": cell.stage, "method": cell.method, "sigma": cell.sigma, "layer": layer}
            row |= {"reference": reference, "state": str(mine["state"].values)}
            yield row | {name: float(mine[name]) for name in NUMBERS}


def main(
    copies: Annotated[
        int, typer.Option(help="Copies for each seed; three times as many at the smallest sigma.")
    ] = 1000,
    seeds: Annotated[int, typer.Option(help="Independent repetitions.")] = 5,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    runs: Annotated[Path, typer.Option(help="Folder of the runs and weights.")] = Path("runs/surrogate_bias"),
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/surrogate_bias"),
    smoke: Annotated[bool, typer.Option("--smoke", help="20 copies, 3 seeds, four cells.")] = False,
) -> None:
    """Probe every cell, print and write the table, draw."""
    copies, seeds, workers = (20, 3, 1) if smoke else (copies, seeds, workers)
    found: list[dict[str, Any]] = []
    squares: dict[tuple[str, float], list[np.ndarray]] = {}
    for cell in cells(smoke):
        ds = measure(cell, runs, copies, seeds, workers, smoke)
        if ds.attrs.get("stopped"):
            print("stopped; the same call goes on from here")
            raise typer.Exit(130)
        found += rows(cell, ds)
        print(f"{cell.stage}, {cell.method}, sigma {cell.sigma:g}: done", flush=True)
        if cell.stage in DRAWN:
            hidden = ds["sqnorm"].sel(parameter=ds["layer"].isin(HIDDEN))
            squares.setdefault((cell.stage, cell.sigma), []).append(hidden.values)
    table = pd.DataFrame(found)
    print(table.round(3).to_string(index=False))
    off = max(float(np.max(np.abs(one / group[0] - 1))) for group in squares.values() for one in group)
    print(
        f"LR's squared lengths: largest relative difference between surrogates {off:.1g} (0: bitwise the same)"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(f"{out}.csv", index=False)
    deep = table[table["stage"].isin(DRAWN) & table["layer"].isin(HIDDEN)]
    gp.plots.bias(deep, save=out)
    print(f"wrote {out}.csv, {out}.png, {out}.pdf and {out}.json")


if __name__ == "__main__":
    typer.run(main)
