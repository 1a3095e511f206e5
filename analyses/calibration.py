"""How often do the intervals of gradprobe hold the truth, and how often does its test cry wolf?

Runs of known truth are drawn as vectors, put into results as a probe would store them, and given to
``gp.stats.alignment``, ``gp.stats.predict`` and ``gp.stats.goodness_of_fit``. Coverage is counted over all
data sets, whatever the state: where there is a one-sided bound, the bound counts.

    python analyses/calibration.py --out figures/calibration
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
import xarray as xr

import gradprobe as gp

Array = npt.NDArray[np.float64]

D, BLOCK, CHUNK = 1000, 10, 250
SPECTRA = {"isotropic": 0.0, "i^-1/2": 0.5, "i^-1": 1.0, "i^-1.5": 1.5}
"""Gaussian noise whose i-th of D directions has a variance in proportion to i^-power."""
TAILS, TAIL_D = {"t5": 5, "t3": 3}, 250
"""Isotropic noise whose length varies from copy to copy as Student's t with so many degrees of freedom."""
ES, ES_D = (1, 10, 100), 100
"""Noise <g, e> e of evolution strategies: copies in a block."""
SIZES = ((5, 20), (10, 20), (20, 20), (5, 200))
SMALL = ((3, 20), (4, 20), (5, 10), (5, 5), (3, 5), (5, 2), (3, 2))
RHOS, RATIOS = (1.0, 0.7, 0.1), (0.01, 0.1, 1.0, 10.0, 100.0)
AHEAD = {"cosine(N/3)": 1 / 3, "cosine(N)": 1.0, "cosine(3N)": 3.0, "cosine(10N)": 10.0}
LAW = {"ceiling": "ceiling", "half-power": "half_copies", "price": "price", "gain": "gain"}
QUANTITIES = (*LAW, *AHEAD)
ENDS = ("_low", "_high")


@dataclass(frozen=True)
class Noise:
    """What the moments need of the noise e of many runs: E|e_k|^2 = 1 for the noise of one block.

    Attributes:
        along: <mean e, g> of each seed, g the unit reference, ``[run, seed]``.
        beside: <mean e, h>, h the unit vector beside g in which a biased mean leans, ``[run, seed]``.
        square: Mean of |e_k|^2 over blocks, ``[run, seed]``.
        gram: <mean e_s, mean e_t>, ``[run, seed, seed]``.
    """

    along: Array
    beside: Array
    square: Array
    gram: Array


def join(parts: list[Noise]) -> Noise:
    """Runs of several chunks."""
    return Noise(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Noise)))


def draw(rng: np.random.Generator, runs: int, seeds: int, blocks: int) -> dict[str, Noise]:
    """Noise of every kind; independent between runs, and not between the spectra or tails of one run."""
    return draw_spectra(rng, runs, seeds, blocks) | draw_tails(rng, runs, seeds, blocks)


def draw_spectra(rng: np.random.Generator, runs: int, seeds: int, blocks: int) -> dict[str, Noise]:
    """Gaussian noise, from each seed's mean vector and, apart from it, the scatter of its blocks.

    Of K normal numbers the mean and the squared deviations from it are independent, 1/K in variance and chi^2 with
    K - 1 degrees of freedom: so only they are drawn, for each of D directions.
    """
    i = np.arange(1, D + 1.0)
    z = rng.standard_normal((runs, seeds, D), dtype=np.float32) / np.float32(np.sqrt(blocks))
    second = z**2 + 2 * rng.standard_gamma((blocks - 1) / 2, z.shape, dtype=np.float32) / np.float32(blocks)
    axes = np.stack([np.ones(D), (-1) ** i], axis=1) / np.sqrt(
        D
    )  # as long in every direction as in any other
    found = {}
    for name, power in SPECTRA.items():
        share = i**-power / (i**-power).sum()
        mean = z * np.sqrt(share).astype(np.float32)
        gram = (mean @ mean.transpose(0, 2, 1)).astype(np.float64)
        square = (second @ share.astype(np.float32)).astype(np.float64)
        average = (mean @ axes.astype(np.float32)).astype(np.float64)
        found[f"{name}, mean along average"] = Noise(average[..., 0], average[..., 1], square, gram)
        if power >= 1:
            top = mean[..., :2].astype(np.float64)
            found[f"{name}, mean along top"] = Noise(top[..., 0], top[..., 1], square, gram)
    return found


def draw_tails(rng: np.random.Generator, runs: int, seeds: int, blocks: int) -> dict[str, Noise]:
    """Noise whose length varies from copy to copy, from vectors of single blocks."""
    parts: dict[str, list[list[Array]]] = {}
    for _ in range(seeds):
        z = rng.standard_normal((runs, blocks, TAIL_D), dtype=np.float32)
        length = np.einsum("rkd,rkd->rk", z, z) / TAIL_D
        for name, freedom in TAILS.items():
            copies = (freedom - 2) / rng.chisquare(freedom, (runs, blocks, BLOCK))
            scale = np.sqrt(copies.mean(-1))
            mean = mixed(scale, z) / np.sqrt(TAIL_D)
            parts.setdefault(name, []).append([mean, (scale**2 * length).mean(1)])
        beside = rng.standard_normal((runs, blocks, ES_D - 1), dtype=np.float32)
        for block in ES:
            along = rng.gamma(block / 2, 2 / block, (runs, blocks))  # mean of the squares of so many <g, e>
            scale = np.sqrt(along / block)
            mean = np.concatenate([along.mean(1)[:, None] - 1, mixed(scale, beside)], axis=1)
            square = scale**2 * np.einsum("rkd,rkd->rk", beside, beside) + (along - 1) ** 2
            tau = (ES_D + 1) / block
            parts.setdefault(f"ES, block {block}", []).append([mean / np.sqrt(tau), square.mean(1) / tau])
    found = {}
    for name, seen in parts.items():
        mean, square = (np.stack(x, 1) for x in zip(*seen, strict=True))
        found[name] = Noise(mean[..., 0], mean[..., 1], square, mean @ mean.transpose(0, 2, 1))
    return found


def mixed(scale: Array, z: npt.NDArray[np.float32]) -> Array:
    """Mean over blocks of scale times z, ``[run, D]``."""
    return (np.matmul(scale.astype(np.float32)[:, None], z)[:, 0] / z.shape[1]).astype(np.float64)


def dataset(moments: dict[str, Array], products: Array, block: int) -> xr.Dataset:
    """Results as a probe stores them, with a unit reference: a run is a parameter, a cell an estimator.

    Args:
        moments: ``dot``, ``sqnorm`` and ``block_sqnorm``, ``[cell, run, seed, copies]``; ``blocks``, ``[copies]``.
        products: ``[cell, run, seed, seed]``.
        block: Copies in a block.
    """
    shape = moments["dot"].shape[:3]
    per_seed = ("estimator", "parameter", "seed")
    found = {name: ((*per_seed, "copies"), moments[name]) for name in ("dot", "sqnorm", "block_sqnorm")}
    found["dot"] = (("reference", *found["dot"][0]), moments["dot"][None])
    found["seed_product"] = ((*per_seed, "other_seed"), products)
    for name in ("sqnorm", "block_sqnorm", "blocks"):
        found[f"reference_{name}"] = (("reference", *per_seed), np.ones((1, *shape)))
    names = [str(i) for i in range(shape[1])]
    coords = {"reference": ["bp"], "estimator": [str(i) for i in range(shape[0])], "parameter": names}
    coords |= {"seed": range(shape[2]), "other_seed": range(shape[2]), "copies": block * moments["blocks"]}
    coords |= {"stochastic": ("estimator", [True] * shape[0]), "layer": ("parameter", names)}
    coords |= {"numel": ("parameter", [1] * shape[1]), "order": ("parameter", range(shape[1]))}
    found["status"] = (per_seed, np.full(shape, "ok"))
    return xr.Dataset(found, coords, {"block": block})


def results(noise: Noise, cells: list[tuple[float, float]], blocks: int, block: int = BLOCK) -> xr.Dataset:
    """Results at the last copies, for mean directions with <mu, g> = |g|^2 = 1.

    Args:
        noise: Noise of the runs.
        cells: rho, and the standard deviation of a block's noise.
        blocks: K.
        block: Copies in a block.
    """
    found: dict[str, list[Array]] = {"dot": [], "sqnorm": [], "block_sqnorm": [], "products": []}
    for rho, sd in cells:
        lean, square = np.sqrt(1 / rho**2 - 1), 1 / rho**2
        linear = sd * (noise.along + lean * noise.beside)
        product = square + linear[:, :, None] + linear[:, None, :] + sd**2 * noise.gram
        found["dot"].append(1 + sd * noise.along)
        found["sqnorm"].append(np.diagonal(product, axis1=1, axis2=2))
        found["block_sqnorm"].append(square + 2 * linear + sd**2 * noise.square)
        found["products"].append(product)
    products = np.stack(found.pop("products"))
    moments = {name: np.stack(values)[..., None] for name, values in found.items()}
    return dataset(moments | {"blocks": np.array([blocks])}, products, block)


def coverage(
    noise: Noise, cells: list[tuple[float, float]], blocks: int, block: int, products: bool
) -> pd.DataFrame:
    """Share of runs whose interval holds the truth, a row for each cell.

    Args:
        noise: Noise of the runs.
        cells: rho and kappa.
        blocks: K.
        block: Copies in a block.
        products: Whether X comes from the products of seeds.
    """
    copies = blocks * block
    sds = [(rho, float(np.sqrt(kappa / rho**2 / block))) for rho, kappa in cells]
    law = gp.stats.alignment(results(noise, sds, blocks, block), over="parameter", products=products)
    ahead = gp.stats.predict(law, [copies * f for f in AHEAD.values()])
    rows = []
    for i, (rho, kappa) in enumerate(cells):
        row: dict[str, object] = {"rho": rho, "kappa/N": kappa / copies, "products": products}
        row |= {s: float((law["state"][i] == s).mean()) for s in ("resolved", "bounded", "unresolved")}
        ends = {name: [law[var + end][i].values for end in ENDS] for name, var in LAW.items()}
        ends |= {
            name: [ahead["cosine" + end][i, :, k].values for end in ENDS] for k, name in enumerate(AHEAD)
        }
        truth = {"ceiling": rho, "half-power": kappa, "price": kappa / rho**2, "gain": 1.0}
        truth |= {name: rho / np.sqrt(1 + kappa / (f * copies)) for name, f in AHEAD.items()}
        for name, (low, high) in ends.items():
            slack = 1e-9 * truth[name]  # a bound of exactly 1 holds a ceiling of 1
            row[name] = float(((low <= truth[name] + slack) & (truth[name] - slack <= high)).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def study(rng: np.random.Generator, runs: int, seeds: int, blocks: int) -> pd.DataFrame:
    """Coverage for every kind of noise at one size, with and without products."""
    grid = [(rho, ratio * blocks * BLOCK) for rho in RHOS for ratio in RATIOS]
    drawn = [draw(rng, min(CHUNK, runs), seeds, blocks) for _ in range(max(1, runs // CHUNK))]
    kinds = {name: (join([d[name] for d in drawn]), grid, BLOCK) for name in drawn[0]}
    for block in ES:  # rho is 1 and kappa D + 1, whatever one would like
        name = f"ES, block {block}"
        kinds[name] = (kinds[name][0], [(1.0, ES_D + 1.0)], block)
    found = []
    for name, (noise, cells, block) in kinds.items():
        for products in (False, True):
            table = coverage(noise, cells, blocks, block, products)
            found.append(table.assign(noise=name, seeds=seeds, blocks=blocks, runs=len(noise.along)))
    return pd.concat(found, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage of each quantity in per cent: share of cells inside 92 to 98, and smallest, median and largest."""
    few = table["noise"].str.startswith(("i^-1.5", "t3")) | table["noise"].str.endswith("top")
    rows = []
    for (products, exception), part in table.groupby(["products", few.rename("exception")]):
        for name in QUANTITIES:
            c = 100 * part[name]
            row = {"products": products, "noise": "exceptions" if exception else "many directions"}
            row |= {"quantity": name, "cells": len(c), "inside": 100 * c.between(92, 98).mean()}
            row |= {"below": int((c < 92).sum()), "above": int((c > 98).sum())}
            rows.append(row | {"min": c.min(), "median": c.median(), "max": c.max()})
    return pd.DataFrame(rows)


def exceptions(table: pd.DataFrame) -> pd.DataFrame:
    """Smallest coverage of each kind of noise and quantity that is somewhere below 92 %, over cells."""
    worst = 100 * table.groupby(["noise", "products"])[list(QUANTITIES)].min()
    return worst[(worst < 92).any(axis=1)].where(worst < 92)


def main(
    runs: Annotated[int, typer.Option(help="Runs for each cell; from 250 on a multiple of 250.")] = 4000,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/calibration"),
    small: Annotated[bool, typer.Option("--small", help="Sizes below 5 seeds x 20 blocks instead.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="20 runs, one size.")] = False,
) -> None:
    """Count, print and write."""
    runs, sizes = (20, ((5, 4),)) if smoke else (runs, SMALL if small else SIZES)
    rng = np.random.default_rng(2024)
    tables = []
    for seeds, blocks in sizes:
        tables.append(study(rng, runs, seeds, blocks))
        print(f"{seeds} seeds x {blocks} blocks: {len(tables[-1])} cells")
    table = pd.concat(tables, ignore_index=True)
    about = [
        "noise",
        "rho",
        "kappa/N",
        "seeds",
        "blocks",
        "products",
        "runs",
        "resolved",
        "bounded",
        "unresolved",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    table[[*about, *QUANTITIES]].round(4).to_csv(out.with_suffix(".csv"), index=False)
    print(f"\ncoverage of 95 % intervals, per cent\n{summary(table).round(1).to_string(index=False)}")
    print(f"\nbelow 92 % somewhere, smallest\n{exceptions(table).round(1).to_string(na_rep='')}")
    print(f"wrote {out.with_suffix('.csv')}")


if __name__ == "__main__":
    typer.run(main)
