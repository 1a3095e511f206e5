"""Runs whose truth is known: block directions drawn from a Gaussian, moments taken from the vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from gradprobe.store.assemble import assemble
from gradprobe.store.products import Products
from gradprobe.store.schema import LayerInfo, Unit, UnitKey, View

LAYERS = {"conv1": 60, "conv2": 120, "fc": 200}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Truth:
    """What an estimator of a synthetic run is.

    Attributes:
        rho: Ceiling, or {layer: ceiling}.
        kappa: Half-power copies, or {layer: ...}; 0 with ``stochastic=False``.
        gain: <mu, g>/|g|^2, or {layer: ...}.
        stochastic: False: one block, the same for all seeds.
        refused: Layers that it refuses.
        missing: Seeds that are not there yet.
        failed: Seeds that failed.
        blocks: Where it ends; None: with the run.
    """

    rho: float | Mapping[str, float] = 1.0
    kappa: float | Mapping[str, float] = 100.0
    gain: float | Mapping[str, float] = 1.0
    stochastic: bool = True
    refused: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    blocks: int | None = None

    def of(self, name: str, layer: str) -> float:
        """One of rho, kappa and gain for a layer."""
        value = getattr(self, name)
        return float(value[layer] if isinstance(value, Mapping) else value)


@dataclass
class World:
    """Everything behind a synthetic run: vectors, per estimator and layer.

    Attributes:
        g: Layer -> reference vector.
        mu: (estimator, layer) -> mean direction.
        blocks: (estimator, seed) -> layer -> ``[K, D]`` block directions.
    """

    g: dict[str, np.ndarray]
    mu: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    blocks: dict[tuple[str, int], dict[str, np.ndarray]] = field(default_factory=dict)


def make_world(
    rng: np.random.Generator,
    layers: Mapping[str, int],
    estimators: Mapping[str, Truth],
    seeds: int,
    blocks: int,
    block: int,
    g: Mapping[str, np.ndarray] | None = None,
) -> World:
    """Draw references (unless they are given), mean directions and i.i.d. isotropic Gaussian block directions."""
    drawn_g = {
        name: _with_norm(rng.standard_normal(d), 1.0 + i) for i, (name, d) in enumerate(layers.items())
    }
    world = World(dict(g) if g is not None else drawn_g)
    for label, truth in estimators.items():
        for layer, g in world.g.items():
            world.mu[label, layer] = _mean(rng, g, truth.of("rho", layer), truth.of("gain", layer))
        for seed in range(seeds if truth.stochastic else 1):
            count = (truth.blocks or blocks) if truth.stochastic else 1
            drawn = {}
            for layer in world.g:
                mu = world.mu[label, layer]
                tau = truth.of("kappa", layer) * (mu @ mu) if truth.stochastic else 0.0
                noise = rng.standard_normal((count, mu.size))
                drawn[layer] = mu + np.sqrt(tau / (block * mu.size)) * noise
            world.blocks[label, seed] = drawn
    return world


def make_run(
    rng: np.random.Generator,
    *,
    layers: Mapping[str, int] = LAYERS,
    estimators: Mapping[str, Truth] | None = None,
    rho: float | Mapping[str, float] = 1.0,
    kappa: float | Mapping[str, float] = 100.0,
    gain: float | Mapping[str, float] = 1.0,
    seeds: int = 5,
    blocks: int = 20,
    block: int = 16,
    noisy_blocks: int = 0,
    reference_noise: float = 0.1,
    world: World | None = None,
    products: bool = False,
) -> xr.Dataset:
    """A run of known truth, put together by the store like a real one.

    Args:
        rng: Random generator.
        layers: Layer -> number of parameters; each layer is a weight and a bias of an eighth of it.
        estimators: Label -> truth; default: one, "lr", of ``rho``, ``kappa``, ``gain``.
        rho: Ceiling, if ``estimators`` is not given; ``kappa`` and ``gain`` alike.
        kappa: Half-power copies.
        gain: <mu, g>/|g|^2.
        seeds: S.
        blocks: K.
        block: Copies in a block.
        noisy_blocks: K_r > 0 adds the reference "smoothed": g plus noise, in so many blocks, fresh per seed.
        reference_noise: Squared length of the noise in that reference's mean, relative to |g|^2.
        world: Vectors, if they were drawn before.
        products: Store the products of the seeds' means too.

    Returns:
        Dataset as :mod:`gradprobe.store.schema` describes it.
    """
    estimators = estimators or {"lr": Truth(rho, kappa, gain)}
    world = world or make_world(rng, layers, estimators, seeds, blocks, block)
    references = ("bp", "smoothed") if noisy_blocks else ("bp",)
    units = []
    for (label, seed), drawn in world.blocks.items():
        truth = estimators[label]
        if seed in truth.missing:
            continue
        noise = {k: _noise(rng, g, noisy_blocks, reference_noise) for k, g in world.g.items()}
        served = [k for k in world.g if k not in truth.refused]
        status = "failed" if seed in truth.failed else "ok"
        units.append(_unit(label, seed, block, references, world.g, drawn, noise, served, status))
    facts = {"total_reference_sqnorm": float(sum(g @ g for g in world.g.values()))}
    infos = [
        LayerInfo(k, "Linear", _names(k), ((d - d // 8,), (d // 8,)), 1) for k, d in _sizes(world).items()
    ]
    views = [_view(label, t, world.g, COLORS[i % 6]) for i, (label, t) in enumerate(estimators.items())]
    held = [_products(label, truth, world, block) for label, truth in estimators.items() if products]
    return assemble(
        infos, views, units, list(range(seeds)), block, references, facts, products=[p for p in held if p]
    )


def _products(label: str, truth: Truth, world: World, block: int) -> Products | None:
    """Products of the means of all seeds that are there, as the store keeps them."""
    gone = {*truth.missing, *truth.failed}
    seeds = [s for e, s in world.blocks if e == label and s not in gone]
    served = [k for k in world.g if k not in truth.refused]
    if not truth.stochastic or not seeds:
        return None
    means = [[p.mean(0) for k in served for p in _parts(world.blocks[label, s][k])] for s in seeds]
    values = np.array([[[a[p] @ b[p] for b in means] for a in means] for p in range(len(means[0]))])
    names = tuple(n for k in served for n in _names(k))
    copies = block * len(next(iter(world.blocks[label, seeds[0]].values())))
    return Products(label, None, copies, (label,), names, tuple(seeds), values[None])


def _sizes(world: World) -> dict[str, int]:
    return {k: g.size for k, g in world.g.items()}


def _names(layer: str) -> tuple[str, str]:
    return (f"{layer}.weight", f"{layer}.bias")


def _with_norm(x: np.ndarray, norm: float) -> np.ndarray:
    return x * (norm / np.linalg.norm(x))


def _mean(rng: np.random.Generator, g: np.ndarray, rho: float, gain: float) -> np.ndarray:
    """Vector with <mu, g> = gain |g|^2 at an angle arccos(rho) to g."""
    other = rng.standard_normal(g.size)
    other = _with_norm(other - (other @ g) / (g @ g) * g, np.linalg.norm(g))
    return gain * (g + np.sqrt(1 / rho**2 - 1) * other)


def _noise(rng: np.random.Generator, g: np.ndarray, blocks: int, share: float) -> np.ndarray:
    return rng.standard_normal((blocks, g.size)) * np.sqrt(share * blocks * (g @ g) / g.size)


def _view(label: str, truth: Truth, layers: Iterable[str], color: str) -> View:
    sources = {k: (label, label) for k in layers if k not in truth.refused}
    refused = {k: "the synthetic estimator does not serve it" for k in truth.refused}
    target = "exact" if truth.rho == 1.0 else "surrogate"
    return View(label, sources, refused, truth.stochastic, target, color, f"synthetic {label}")


def _parts(x: np.ndarray) -> list[np.ndarray]:
    d = x.shape[-1]
    return [x[..., : d - d // 8], x[..., d - d // 8 :]]


def _unit(
    label: str,
    seed: int,
    block: int,
    references: tuple[str, ...],
    g: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    noise: Mapping[str, np.ndarray],
    served: list[str],
    status: str,
) -> Unit:
    parts = [p for k in served for p in _parts(drawn[k])]  # [K, D] each
    count = parts[0].shape[0]
    k = np.arange(1, count + 1)
    means = [np.cumsum(p, axis=0) / k[:, None] for p in parts]
    clean = [p for name in served for p in _parts(g[name])]
    refs = {"bp": [c[None] for c in clean]}
    refs["smoothed"] = [
        c + e for c, e in zip(clean, (e for n in served for e in _parts(noise[n])), strict=True)
    ]
    mean = {r: [x.mean(0) for x in refs[r]] for r in references}
    one = count if count > 1 else 1
    return Unit(
        key=UnitKey(label, None, seed),
        readouts=(label,),
        parameters=tuple(n for k in served for n in _names(k)),
        block=block,
        references=references,
        dot=np.array([[[m @ x for m, x in zip(means, mean[r], strict=True)]] for r in references]),
        sqnorm=np.array([[(m**2).sum(-1) for m in means]]),
        block_sqnorm=np.array([[np.cumsum((p**2).sum(-1)) / k for p in parts]]),
        reference_sqnorm=np.array([[x @ x for x in mean[r]] for r in references]),
        reference_block_sqnorm=np.array([[(x**2).sum(-1).mean() for x in refs[r]] for r in references]),
        reference_blocks=np.array([[float(len(x)) for x in refs[r]] for r in references]),
        reference_dot=np.array([[c @ x for c, x in zip(clean, mean[r], strict=True)] for r in references]),
        forwards=block * k.astype(float),
        equivalents=block * k.astype(float),
        nonfinite=np.zeros(one),
        seconds=0.01 * count,
        status=status,
    )
