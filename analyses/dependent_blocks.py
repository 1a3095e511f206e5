"""What does gradprobe's goodness-of-fit test find, and how often does it cry wolf?

Runs are drawn as vectors of single blocks, most with a planted fault, put into results as a probe would store them,
and given to ``gp.stats.goodness_of_fit``, with products of seeds and without.

    python analyses/dependent_blocks.py --out figures/dependent_blocks
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
import xarray as xr
from calibration import BLOCK, CHUNK, Array, dataset

import gradprobe as gp

D, RHO, RATIOS = 100, 0.7, (0.1, 1.0, 10.0)
Change = Callable[[Array, np.random.Generator], Array]


def spectrum(power: float) -> Change:
    """Gaussian noise whose i-th direction has a variance in proportion to i^-power."""
    share = np.arange(1, D + 1.0) ** -power
    return lambda z, rng: z * np.sqrt(share / share.mean())


def tails(z: Array, rng: np.random.Generator) -> Array:
    """Copies whose length is Student's t with 3 degrees of freedom."""
    return z * np.sqrt((1 / rng.chisquare(3, (*z.shape[:3], BLOCK))).mean(-1))[..., None]


def depends(share: float) -> Change:
    """Each block repeats ``share`` of the one before: AR(1)."""

    def change(z: Array, rng: np.random.Generator) -> Array:
        out = z.copy()
        for k in range(1, z.shape[2]):
            out[:, :, k] = share * out[:, :, k - 1] + np.sqrt(1 - share**2) * z[:, :, k]
        return out

    return change


def mirrored(z: Array, rng: np.random.Generator) -> Array:
    """Neighbours two by two have a correlation of -0.5."""
    out = z.copy()
    out[:, :, 1::2] = -0.5 * z[:, :, ::2] + np.sqrt(0.75) * z[:, :, 1::2]
    return out


def common(share: float) -> Change:
    """A share of the noise is the same in all blocks of a seed."""
    return lambda z, rng: (
        np.sqrt(1 - share) * z + np.sqrt(share) * rng.standard_normal((*z.shape[:2], 1, z.shape[3]))
    )


SOUND: dict[str, Change] = {
    "isotropic": lambda z, rng: z,
    "i^-1": spectrum(1.0),
    "i^-1.5": spectrum(1.5),
    "t3": tails,
}
FAULTS: dict[str, Change] = {
    "blocks twice": lambda z, rng: np.repeat(z[:, :, ::2], 2, axis=2),
    "AR(1) 0.3": depends(0.3),
    "AR(1) 0.1": depends(0.1),
    "pairs -0.5": mirrored,
    "noise +20 %": lambda z, rng: z * np.linspace(0.9, 1.1, z.shape[2])[:, None],
    "gain -50 %": lambda z, rng: z,
    "10 % common": common(0.1),
    "2 % common": common(0.02),
}


def flagged(
    rng: np.random.Generator, name: str, change: Change, runs: int, seeds: int, blocks: int
) -> pd.DataFrame:
    """Share of runs that are flagged, and rejected by each test at 5 %; a row for each kappa/N."""
    gain = np.linspace(1.25, 0.75, blocks) if name.startswith("gain") else np.ones(blocks)
    mu = np.zeros(D)
    mu[:2] = 1, np.sqrt(1 / RHO**2 - 1)
    sds = [np.sqrt(r * blocks / RHO**2 / D) for r in RATIOS]
    parts = []
    for start in range(0, runs, CHUNK):
        noise = change(rng.standard_normal((min(CHUNK, runs - start), seeds, blocks, D)), rng)
        drawn = np.stack([gain[:, None] * mu + sd * noise for sd in sds])
        ds = prefixes(drawn)
        found = gp.stats.goodness_of_fit(ds, over="parameter")
        without = gp.stats.goodness_of_fit(ds.drop_vars("seed_product"), over="parameter")
        each = (found["p_value"] < 0.05).to_dataset("test").rename({"shared": "shared noise"})
        parts.append(each.assign(products=found["flagged"], moments=without["flagged"]).mean("parameter"))
    table = sum(p[list(p.data_vars)].to_array().to_series() for p in parts) / len(parts)
    wide = table.unstack("variable").reset_index(drop=True)
    return wide.assign(noise=name, seeds=seeds, blocks=blocks, runs=runs, **{"kappa/N": RATIOS})


def prefixes(blocks: Array) -> xr.Dataset:
    """Results of block vectors ``[cell, run, seed, K, D]`` whose reference is the first direction."""
    k = np.arange(1, blocks.shape[3] + 1)
    mean = np.cumsum(blocks, axis=3) / k[:, None]
    square = np.cumsum((blocks**2).sum(-1), axis=-1) / k
    moments = {"dot": mean[..., 0], "sqnorm": (mean**2).sum(-1), "block_sqnorm": square, "blocks": k}
    last = mean[..., -1, :]
    products = last @ last.swapaxes(-1, -2)
    s = np.arange(last.shape[2])
    products[..., s, s] = moments["sqnorm"][..., -1]
    return dataset(moments, products, BLOCK)


def main(
    runs: Annotated[int, typer.Option(help="Runs of each kind.")] = 4000,
    out: Annotated[Path, typer.Option(help="File name without ending.")] = Path("figures/dependent_blocks"),
    smoke: Annotated[bool, typer.Option("--smoke", help="20 runs.")] = False,
) -> None:
    """Count, print and write."""
    runs = 20 if smoke else runs
    rng = np.random.default_rng(2025)
    tables = [flagged(rng, name, change, runs, 5, 20) for name, change in FAULTS.items()]
    tables += [flagged(rng, "2 % common", common(0.02), runs, 10, 20)]
    for name, change in SOUND.items():
        tables += [flagged(rng, name, change, runs, *size) for size in ((3, 20), (5, 20), (10, 20), (5, 5))]
    table = pd.concat(tables, ignore_index=True)
    first = ["noise", "seeds", "blocks", "kappa/N", "runs", "moments", "products"]
    table = table[[*first, *table.columns.drop(first)]]
    out.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out.with_suffix(".csv"), index=False)
    table.iloc[:, 5:] *= 100
    print("flagged by moments alone and with products, and rejected by each test at 5 %, in per cent of runs")
    print(table.round(1).to_string(index=False))
    print(f"wrote {out.with_suffix('.csv')}")


if __name__ == "__main__":
    typer.run(main)
