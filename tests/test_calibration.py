"""The noise of ``analyses/calibration.py`` against vectors of single blocks and closed forms."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "analyses" / "calibration.py"))
RUNS, SEEDS, BLOCKS = 400, 3, 6
SPECTRA = SCRIPT["SPECTRA"]


def numbers(along: np.ndarray, square: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Everything that the moments are made of, and its products: ``[run, number]``."""
    rows = [along[:, 0], square[:, 0], gram[:, 0, 0], gram[:, 0, 1]]
    rows += [a * b for i, a in enumerate(rows) for b in rows[i:]]
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("name", list(SPECTRA))
def test_short_cut_is_the_vectors(name: str) -> None:
    """Means of 14 numbers, drawn and from vectors: 400 runs each, z below 5 (false alarms 3e-5 for all four)."""
    rng = np.random.default_rng(0)
    drawn = SCRIPT["draw_spectra"](rng, RUNS, SEEDS, BLOCKS)[f"{name}, mean along average"]
    share = np.arange(1, SCRIPT["D"] + 1.0) ** -SPECTRA[name]
    share /= share.sum()
    axis = np.full(len(share), len(share) ** -0.5)
    total, square = np.zeros((RUNS, 2, len(share))), np.zeros((RUNS, 2))
    for _ in range(BLOCKS):
        one = rng.standard_normal(total.shape) * np.sqrt(share)
        total += one / BLOCKS
        square += (one**2).sum(-1) / BLOCKS
    slow = numbers(total @ axis, square, total @ total.transpose(0, 2, 1))
    fast = numbers(drawn.along, drawn.square, drawn.gram)
    z = (fast.mean(0) - slow.mean(0)) / np.sqrt((fast.var(0) + slow.var(0)) / RUNS)
    assert np.abs(z).max() < 5


def test_noise_of_evolution_strategies_is_that_of_its_copies() -> None:
    """<g, e> e - g from copies one by one, block 10: means of |block|^2 and |mean|^2, z below 5."""
    rng = np.random.default_rng(1)
    dim, block = SCRIPT["ES_D"], 10
    drawn = SCRIPT["draw_tails"](rng, RUNS, SEEDS, BLOCKS)["ES, block 10"]
    e = rng.standard_normal((RUNS, BLOCKS, block, dim))
    blocks = (e[..., :1] * e).mean(2)
    blocks[..., 0] -= 1
    blocks /= np.sqrt((dim + 1) / block)
    mean = blocks.mean(1)
    slow = np.stack([mean[:, 0], (blocks**2).sum(-1).mean(1), (mean**2).sum(-1)], axis=1)
    fast = np.stack([drawn.along[:, 0], drawn.square[:, 0], drawn.gram[:, 0, 0]], axis=1)
    z = (fast.mean(0) - slow.mean(0)) / np.sqrt((fast.var(0) + slow.var(0)) / RUNS)
    assert np.abs(z).max() < 5
    assert np.allclose(fast.var(0), slow.var(0), rtol=0.5)


def test_results_have_the_moments_of_their_vectors() -> None:
    """One run of two cells, its vectors written out."""
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((3, 5, 7))  # seed, block, direction; g and h are the first two directions
    mean = noise.mean(1)
    made = SCRIPT["Noise"](
        mean[None, :, 0], mean[None, :, 1], (noise**2).sum(-1).mean(1)[None], (mean @ mean.T)[None]
    )
    ds = SCRIPT["results"](made, [(1.0, 0.5), (0.6, 2.0)], 5)
    for cell, (rho, sd) in enumerate([(1.0, 0.5), (0.6, 2.0)]):
        mu = np.zeros(7)
        mu[:2] = 1, np.sqrt(1 / rho**2 - 1)
        blocks = mu + sd * noise
        one = ds.isel(estimator=cell, parameter=0, copies=0)
        means = blocks.mean(1)
        assert np.allclose(one["dot"].squeeze(), means[:, 0])
        assert np.allclose(one["sqnorm"], (means**2).sum(-1))
        assert np.allclose(one["block_sqnorm"], (blocks**2).sum(-1).mean(1))
        assert np.allclose(one["seed_product"], means @ means.T)
