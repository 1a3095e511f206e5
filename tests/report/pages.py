"""Runs for tests of pages: an ordinary one, and one whose names are hostile."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from tests.synthetic import Truth, make_run

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quoted\" & 'single' onload=alert(1)",
    "ünï→漢字😀",
    "x" * 300,
    "line\nbreak",
    "../../etc/passwd",
    "=1+cmd|' /C calc'!A0",
    "\\textbf{a}_b^c%$#&~{}",
)
METHODS = {
    "</script><b onmouseover=alert(1)>": Truth(),
    "$\\frac{$": Truth(rho=0.7, kappa=30.0),
    '=1+1" onclick="alert(1)': Truth(kappa=20.0),
    "bp": Truth(kappa=0.0, stochastic=False),
}
KINDS = {"conv1": "Conv2d", "conv2": "Conv2d", "fc": "Linear"}


def ordinary(seeds: int = 5, blocks: int = 20, smoothed: bool = True) -> xr.Dataset:
    """Three layers and four methods, one of them without noise, one that refuses a layer."""
    methods = {
        "lr": Truth(kappa=40.0),
        "alr": Truth(rho=0.7, kappa=30.0),
        "es": Truth(kappa=5000.0, refused=("conv2",)),
        "bp": Truth(kappa=0.0, stochastic=False),
    }
    rng = np.random.default_rng(7)
    ds = make_run(
        rng, estimators=methods, seeds=seeds, blocks=blocks, products=True, noisy_blocks=20 if smoothed else 0
    )
    infos = json.loads(ds.attrs["layers"])
    for info in infos:
        info["kind"] = KINDS[info["name"]]
    ds.attrs |= {"layers": json.dumps(infos), "problem": "a small net", "batch_size": 32}
    return ds


def hostile() -> xr.Dataset:
    """Layers, methods and problem with names that are code to something or other."""
    rng = np.random.default_rng(0)
    layers = dict.fromkeys(HOSTILE, 24)
    ds = make_run(rng, layers=layers, estimators=METHODS, seeds=3, blocks=20, products=True, noisy_blocks=10)
    ds.attrs["problem"] = "</title><script>alert(2)</script>\n&amp; 'x'"
    ds.attrs["checkpoint"] = '"><svg onload=alert(3)>.pt'
    ds.attrs["checkpoint_sha256"] = "0" * 64
    return ds


def large(layers: int = 100, methods: int = 8) -> xr.Dataset:
    """As many layers and methods as a page must stay quick with."""
    rng = np.random.default_rng(1)
    names = {f"encoder.block{i}.conv{i % 3}": 24 for i in range(layers)}
    truths = {f"m{i}": Truth(rho=1.0 if i % 2 else 0.8, kappa=50.0 * (i + 1)) for i in range(methods)}
    sizes = {"seeds": 3, "blocks": 50, "block": 10, "noisy_blocks": 10}
    return make_run(rng, layers=names, estimators=truths, products=True, **sizes)
