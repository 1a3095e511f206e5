"""How often do the intervals of gradprobe hold the truth, and how often does its test cry wolf?

Runs of known truth are drawn as vectors, put into results as a probe would store them, and given to
``gp.stats.alignment``, ``gp.stats.predict`` and ``gp.stats.goodness_of_fit``. Coverage is counted over all
data sets, whatever the state: where there is a one-sided bound, the bound counts.

    python analyses/calibration.py --out figures/calibration
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import xarray as xr

import gradprobe as gp

Array = npt.NDArray[np.float64]

D, BLOCK, CHUNK = 1000, 10, 250
SPECTRA = {"isotropic": 0.0, "i^-1/2": 0.5, "i^-1": 1.0, "i^-1.5": 1.5}
"""Gaussian noise whose i-th of D directions has a variance in proportion to i^-power."""
TAILS = {"t5": 5, "t3": 3}
"""Isotropic noise whose length varies from copy to copy as Student's t with so many degrees of freedom."""
ES = {100: (1, 10, 100), 1000: (1, 10, 100)}
"""Noise <g, e> e of evolution strategies in so many dimensions: copies in a block."""
SIZES = ((5, 20), (10, 20), (20, 20), (5, 200))
SMALL = ((3, 20), (4, 20), (5, 10), (5, 5), (3, 5), (5, 2), (3, 2))
RHOS, RATIOS = (1.0, 0.7, 0.1), (0.01, 0.1, 1.0, 10.0, 100.0)
AHEAD = {"cosine(N/3)": 1 / 3, "cosine(N)": 1.0, "cosine(3N)": 3.0, "cosine(10N)": 10.0}
LAW = {"ceiling": "ceiling", "half-power": "half_copies", "price": "price", "gain": "gain"}


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


def scales(rng: np.random.Generator, runs: int, blocks: int) -> dict[str, Array]:
    """Length of the noise of each block relative to its expectation, per heavy-tailed noise, ``[run, K]``."""
    found = {}
    for name, freedom in TAILS.items():
        copies = (freedom - 2) / rng.chisquare(freedom, (runs, blocks, BLOCK))
        found[name] = np.sqrt(copies.mean(-1))
    return found


def draw(rng: np.random.Generator, runs: int, seeds: int, blocks: int) -> dict[str, Noise]:
    """Noise of every kind from the same normal vectors: independent between runs, not between kinds."""
    i = np.arange(1, D + 1.0)
    roots = {name: np.sqrt(i**-power / (i**-power).sum()) for name, power in SPECTRA.items()}
    spread = np.linalg.qr(rng.standard_normal((runs, D, 2)))[0].transpose(2, 0, 1)
    means: dict[str, list[Array]] = {}
    squares: dict[str, list[Array]] = {}
    for _ in range(seeds):
        z = rng.standard_normal((runs, blocks, D), dtype=np.float32)
        mean, second = z.mean(1), np.einsum("rkd,rkd->rd", z, z) / blocks
        for name, root in roots.items():
            means.setdefault(name, []).append(mean * root)
            squares.setdefault(name, []).append(second @ root**2)
        length = np.einsum("rkd,rkd->rk", z, z) / D
        for name, scale in scales(rng, runs, blocks).items():
            weighted = np.matmul(scale.astype(np.float32)[:, None], z)[:, 0]
            means.setdefault(name, []).append(weighted / blocks / np.sqrt(D))
            squares.setdefault(name, []).append((scale**2 * length).mean(1))
    found = {}
    for name, vectors in means.items():
        mean, square = np.stack(vectors, 1).astype(np.float64), np.stack(squares[name], 1)
        gram = mean @ mean.transpose(0, 2, 1)
        along, beside = (np.einsum("rsd,rd->rs", mean, axis) for axis in spread)
        found[f"{name}, mean along average"] = Noise(along, beside, square, gram)
        if SPECTRA.get(name, 0.0) >= 1:
            found[f"{name}, mean along top"] = Noise(mean[..., 0], mean[..., 1], square, gram)
    return found


def draw_es(rng: np.random.Generator, runs: int, seeds: int, blocks: int, block: int, dim: int) -> Noise:
    """<g, e> e - g in ``dim`` dimensions: given <g, e>, what lies beside g is isotropic. Not of unit length."""
    means, first, squares = [], [], []
    for _ in range(seeds):
        along = rng.standard_normal((runs, blocks, block)) ** 2
        beside = rng.standard_normal((runs, blocks, dim - 1), dtype=np.float32)
        scale = np.sqrt(along.mean(-1) / block)
        means.append(np.matmul(scale.astype(np.float32)[:, None], beside)[:, 0] / blocks)
        first.append(along.mean((-1, -2)) - 1)
        length = scale**2 * np.einsum("rkd,rkd->rk", beside, beside)
        squares.append((length + (along.mean(-1) - 1) ** 2).mean(1))
    mean, own = np.stack(means, 1).astype(np.float64), np.stack(first, 1)
    gram = mean @ mean.transpose(0, 2, 1) + own[:, :, None] * own[:, None, :]
    return Noise(own, np.zeros_like(own), np.stack(squares, 1), gram)


def results(noise: Noise, cells: list[tuple[float, float]], blocks: int, block: int = BLOCK) -> xr.Dataset:
    """Results at the last copies as a probe stores them: a run is a parameter, a cell an estimator.

    Args:
        noise: Noise of the runs.
        cells: rho, and the standard deviation of a block's noise, for mean directions with <mu, g> = |g|^2 = 1.
        blocks: K.
        block: Copies in a block.
    """
    runs, seeds = noise.along.shape
    found: dict[str, list[Array]] = {"dot": [], "sqnorm": [], "block_sqnorm": [], "seed_product": []}
    for rho, sd in cells:
        lean, square = np.sqrt(1 / rho**2 - 1), 1 / rho**2
        linear = sd * (noise.along + lean * noise.beside)
        product = square + linear[:, :, None] + linear[:, None, :] + sd**2 * noise.gram
        found["dot"].append(1 + sd * noise.along)
        found["sqnorm"].append(np.diagonal(product, axis1=1, axis2=2))
        found["block_sqnorm"].append(square + 2 * linear + sd**2 * noise.square)
        found["seed_product"].append(product)
    names = [str(i) for i in range(runs)]
    shape = (1, len(cells), runs, seeds)
    per_seed = ("reference", "estimator", "parameter", "seed")
    ds = xr.Dataset(
        {
            "dot": ((*per_seed, "copies"), np.stack(found["dot"])[None, ..., None]),
            "sqnorm": ((*per_seed[1:], "copies"), np.stack(found["sqnorm"])[..., None]),
            "block_sqnorm": ((*per_seed[1:], "copies"), np.stack(found["block_sqnorm"])[..., None]),
            "seed_product": ((*per_seed[1:], "other_seed"), np.stack(found["seed_product"])),
            "reference_sqnorm": (per_seed, np.ones(shape)),
            "reference_block_sqnorm": (per_seed, np.ones(shape)),
            "reference_blocks": (per_seed, np.ones(shape)),
            "status": (per_seed[1:], np.full(shape[1:], "ok")),
        },
        coords={"reference": ["bp"], "estimator": [str(i) for i in range(len(cells))]},
        attrs={"block": block},
    )
    about = {"layer": names, "numel": [1] * runs, "order": range(runs)}
    return ds.assign_coords(
        {k: ("parameter", list(v)) for k, v in about.items()}
        | {"parameter": names, "seed": range(seeds), "other_seed": range(seeds)}
        | {"copies": [blocks * block], "stochastic": ("estimator", [True] * len(cells))}
    )


def coverage(
    noise: Noise, cells: list[tuple[float, float]], blocks: int, block: int, products: bool
) -> list[dict[str, object]]:
    """Share of runs whose interval holds the truth, per cell and quantity.

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
    rows: list[dict[str, object]] = []
    for i, (rho, kappa) in enumerate(cells):
        truth = {"ceiling": rho, "half-power": kappa, "price": kappa / rho**2, "gain": 1.0}
        truth |= {k: rho / np.sqrt(1 + kappa / (f * copies)) for k, f in AHEAD.items()}
        shares = {s: float((law["state"][i] == s).mean()) for s in ("resolved", "bounded", "unresolved")}
        for name, value in truth.items():
            if name in LAW:
                low, high = (law[LAW[name] + end][i].values for end in ("_low", "_high"))
            else:
                k = list(AHEAD).index(name)
                low, high = (ahead["cosine" + end][i, :, k].values for end in ("_low", "_high"))
            slack = 1e-9 * abs(value)  # a bound of exactly 1 is met by a truth of 1
            inside = (low <= value + slack) & (value - slack <= high)
            rows.append(
                {"rho": rho, "kappa/N": kappa / copies, "products": products, "quantity": name}
                | {"coverage": float(inside.mean()), "runs": inside.size}
                | shares
            )
    return rows
