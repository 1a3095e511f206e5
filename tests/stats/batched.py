"""Runs of several batches whose truth is known: the batches' gradients scatter around that of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.spec import canonical_json
from gradprobe.store.batches import join_batches
from tests.synthetic import LAYERS, Truth, World, make_run, make_world

BATCH_SIZE = 4


@dataclass
class Batched:
    """Worlds of all batches, and what they scatter around.

    Attributes:
        whole: Layer -> gradient of the data.
        worlds: One for each batch.
        ds: The results.
    """

    whole: dict[str, np.ndarray]
    worlds: list[World]
    ds: xr.Dataset

    def g(self, layer: str) -> np.ndarray:
        """Gradients of the batches ``[batch, D]``; ``"model"``: of all layers."""
        return np.stack([_joined(w.g, layer) for w in self.worlds])

    def blocks(self, label: str, seed: int, layer: str) -> np.ndarray:
        """Block directions ``[batch, K, D]``."""
        return np.stack([_joined(w.blocks[label, seed], layer) for w in self.worlds])


def make_batches(
    rng: np.random.Generator,
    estimators: Mapping[str, Truth],
    *,
    batches: int,
    noise: float,
    layers: Mapping[str, int] = LAYERS,
    seeds: int = 3,
    blocks: int = 10,
    block: int = 8,
    dataset: int = 0,
    passes: Mapping[str, tuple[float, float]] | None = None,
) -> Batched:
    """Draw a run of several batches.

    Args:
        rng: Random generator.
        estimators: Label -> truth, for each batch with respect to its own gradient.
        batches: How many.
        noise: V / |G|^2 of each layer; isotropic.
        layers: Layer -> number of parameters.
        seeds: S.
        blocks: K.
        block: Copies in a block.
        dataset: N > 0 adds the reference "dataset" of so many samples, whose gradient is drawn around G too (for
            all samples but the batches', which are few).
        passes: Label -> gains along G and along g_b - G, for an estimator whose mean is just these.
    """
    whole = {name: d**-0.5 * rng.standard_normal(d) for name, d in layers.items()}
    worlds, runs = [], {}
    for number in range(batches):
        g = {k: x + _noise(rng, x, noise) for k, x in whole.items()}
        world = make_world(rng, layers, estimators, seeds, blocks, block, g)
        for label, (along, noisy) in (passes or {}).items():
            for layer, x in whole.items():
                shift = along * x + noisy * (g[layer] - x) - world.mu[label, layer]
                for seed in range(seeds):
                    world.blocks[label, seed][layer] += shift
        worlds.append(world)
        runs[number] = make_run(
            rng, layers=layers, estimators=estimators, seeds=seeds, blocks=blocks, block=block, world=world
        ).assign_attrs(batch_size=BATCH_SIZE)
    parts = [_named_parts(w.g) for w in worlds]
    ds = join_batches(runs, {p: [[a[p] @ b[p] for b in parts] for a in parts] for p in parts[0]})
    if dataset:
        whole = {k: x + _noise(rng, x, noise * BATCH_SIZE / dataset) for k, x in whole.items()}
        ds = _with_dataset(ds, parts, _named_parts(whole), dataset)
        for at, world in enumerate(worlds):
            for (label, seed), blocks in world.blocks.items():
                for p, b in _named_parts(blocks).items():
                    means = np.cumsum(b, axis=0) / np.arange(1, len(b) + 1)[:, None]
                    where = {
                        "batch": at,
                        "estimator": label,
                        "seed": seed,
                        "reference": "dataset",
                        "parameter": p,
                    }
                    ds["dot"].loc[where] = means @ _named_parts(whole)[p]
    return Batched(whole, worlds, ds)


def _with_dataset(
    ds: xr.Dataset, parts: list[dict[str, np.ndarray]], whole: dict[str, np.ndarray], samples: int
) -> xr.Dataset:
    """Results with the reference "dataset" as far as ``data_or_copies`` reads it."""
    ds = ds.isel(reference=[0, 0]).assign_coords(reference=["bp", "dataset"]).copy(deep=True)
    for p, g in whole.items():
        at = {"reference": "dataset", "parameter": p}
        ds["reference_sqnorm"].loc[at] = g @ g
        for batch, own in enumerate(parts):
            ds["reference_dot"].loc[at | {"batch": batch}] = g @ own[p]
    about: dict[str, Any] = {"samples": samples}
    return ds.assign_attrs(dataset=canonical_json(about))


def _noise(rng: np.random.Generator, x: np.ndarray, share: float) -> np.ndarray:
    return rng.standard_normal(x.size) * np.sqrt(share * (x @ x) / x.size)


def _named_parts(g: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By parameter, as ``tests.synthetic`` cuts layers along the last axis."""
    found = {}
    for layer, x in g.items():
        cut = x.shape[-1] - x.shape[-1] // 8
        found |= {f"{layer}.weight": x[..., :cut], f"{layer}.bias": x[..., cut:]}
    return found


def _joined(by_layer: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    return np.concatenate(list(by_layer.values()), axis=-1) if layer == "model" else by_layer[layer]
