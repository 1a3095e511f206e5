"""How long do the statistics of a large run take?

Made-up moments of 6 methods x 100 parameters x 20 seeds x 200 points (the size of a long probe of a deep network),
all statistics of a run in turn, seconds of one process. The first call of all pays the imports of scipy and pandas,
so it is made beforehand on a small run.

    python analyses/bench_stats.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

from gradprobe import stats

METHODS = ("lr", "alr", "es", "aes", "hybrid", "a-hybrid")
NUMBERS = 6
"""Entries of each made-up parameter: statistics see its moments alone."""

SAMPLES = 32


def made_up(methods: int, parameters: int, seeds: int, points: int, block: int = 10) -> xr.Dataset:
    """A run whose block directions are Gaussian around a mean direction with a ceiling of 0.9."""
    rng = np.random.default_rng(0)
    g, extra = rng.standard_normal((2, parameters, NUMBERS))
    mu = g + 0.5 * extra
    k = np.arange(1, points + 1)
    found: dict[str, list[Any]] = {"dot": [], "sqnorm": [], "block_sqnorm": [], "seed_product": []}
    for _ in range(methods):
        blocks = mu[:, None, None] + 3.0 * rng.standard_normal((parameters, seeds, points, NUMBERS))
        mean = blocks.cumsum(2) / k[:, None]
        found["dot"].append((mean * g[:, None, None]).sum(-1))
        found["sqnorm"].append((mean**2).sum(-1))
        found["block_sqnorm"].append((blocks**2).sum(-1).cumsum(2) / k)
        found["seed_product"].append(np.einsum("psd,ptd->pst", mean[:, :, -1], mean[:, :, -1]))
    values = {name: np.stack(each) for name, each in found.items()}
    dims = ("estimator", "parameter", "seed")
    ds = xr.Dataset(
        {
            "dot": (("reference", *dims, "copies"), np.stack([values["dot"]] * 2)),
            "sqnorm": ((*dims, "copies"), values["sqnorm"]),
            "block_sqnorm": ((*dims, "copies"), values["block_sqnorm"]),
            "seed_product": ((*dims, "other_seed"), values["seed_product"]),
        },
        {
            "reference": ["bp", "smoothed"],
            "estimator": list(METHODS[:methods]),
            "parameter": [f"layer{p // 2}.{('weight', 'bias')[p % 2]}" for p in range(parameters)],
            "seed": range(seeds),
            "other_seed": range(seeds),
            "copies": block * k,
            "layer": ("parameter", [f"layer{p // 2}" for p in range(parameters)]),
            "order": ("parameter", [p // 2 for p in range(parameters)]),
            "numel": ("parameter", [NUMBERS] * parameters),
            "stochastic": ("estimator", [True] * methods),
            "target": ("estimator", ["smoothed"] * methods),
        },
    )
    shape = (2, methods, parameters, seeds)
    square = np.broadcast_to((g**2).sum(-1)[:, None], shape)
    for name in ("reference_sqnorm", "reference_block_sqnorm", "reference_dot"):
        ds[name] = (("reference", *dims), np.array(square))
    ds["reference_blocks"] = (("reference", *dims), np.ones(shape))
    ds.coords["sample"] = np.arange(SAMPLES)
    ds["sample_loss"] = ("sample", rng.exponential(size=SAMPLES))
    for name, scale in (("sample_sqnorm", 10.0), ("sample_product", 1.0)):
        ds[name] = ((*dims, "sample"), scale * rng.exponential(size=(*shape[1:], SAMPLES)))
    ds["status"] = (dims, np.full(shape[1:], "ok"))
    each = np.broadcast_to(ds["copies"].values.astype(float), (*shape[1:], points))
    for name in ("forwards", "equivalents"):
        ds[name] = ((*dims, "copies"), np.array(each))
    ds["seconds"] = (dims, np.ones(shape[1:]))
    ds.attrs = {"block": block, "total_reference_sqnorm": float((g**2).sum())}
    return ds


def statistics(ds: xr.Dataset) -> dict[str, Callable[[], Any]]:
    """Every statistic of a probed run, by name, with its usual arguments."""
    law = stats.alignment(ds)
    most = int(ds["copies"][-1])
    return {
        "cosine": lambda: stats.bands(stats.cosine(ds)),
        "accuracy": lambda: stats.accuracy(ds),
        "stability": lambda: stats.stability(ds),
        "stability_floor": lambda: stats.stability_floor(ds),
        "alignment": lambda: stats.alignment(ds),
        "alignment, model": lambda: stats.alignment(ds, over="model", scale="unit-gain"),
        "predict": lambda: stats.predict(law, [most, 2 * most]),
        "coverage": lambda: stats.coverage(ds),
        "alignment, groups": lambda: stats.alignment(ds, over={"first": "layer0", "all": "*"}),
        "goodness_of_fit": lambda: stats.goodness_of_fit(ds),
        "decompose": lambda: stats.decompose(ds),
        "cost": lambda: stats.cost(ds),
        "frontier": lambda: stats.frontier(ds, over="model"),
        "compare": lambda: stats.compare(ds, "lr", "alr"),
        "compare, equal cost": lambda: stats.compare(ds, "lr", "alr", at="equivalents"),
        "allocate": lambda: stats.allocate(ds),
        "plan": lambda: stats.plan(ds, cosine=0.5),
    }


def main(
    smoke: Annotated[
        bool, typer.Option("--smoke", help="2 methods, 4 parameters, 3 seeds, 5 points.")
    ] = False,
) -> None:
    """Time every statistic once."""
    small = made_up(2, 4, 3, 5)
    for run in statistics(small).values():
        run()
    ds = small if smoke else made_up(6, 100, 20, 200)
    total = 0.0
    for name, run in statistics(ds).items():
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        total += seconds
        print(f"{name:20} {seconds:6.3f} s")
    print(f"{'all':20} {total:6.3f} s")


if __name__ == "__main__":
    typer.run(main)
