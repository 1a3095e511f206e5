"""Paths whose truth is known: noisy descents on a polynomial with one global and one local minimum.

f(x, y, ...) = 3 x^4 - 2 x^3 - 3 x^2 + y^2 + ...: its minima are (1, 0, ...) with value -2 and, local,
(-1/2, 0, ...) with value -5/16; between them is a saddle at 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tests.synthetic import COLORS

GLOBAL, LOCAL, VALUE, LOCAL_VALUE = 1.0, -0.5, -2.0, -0.3125
WHERE = [(-1.5, 2.0), (-2.0, 2.0)]
BEGIN = [(1.8, 1.5), (-1.2, 1.0), (0.3, -1.5), (-0.4, -1.0), (1.6, -0.5)]
DETERMINISTIC = ("bp",)
HALF_NORMAL = np.sqrt(2 / np.pi)
"""E|eps| of a standard normal variable."""


def value(x: np.ndarray) -> np.ndarray:
    """f at points ``[..., coordinate]``."""
    return 3 * x[..., 0] ** 4 - 2 * x[..., 0] ** 3 - 3 * x[..., 0] ** 2 + (x[..., 1:] ** 2).sum(-1)


def slope(x: np.ndarray) -> np.ndarray:
    """Its gradient."""
    found = 2 * x
    found[..., 0] = 12 * x[..., 0] * (x[..., 0] - GLOBAL) * (x[..., 0] - LOCAL)
    return found


def make_path(
    rng: np.random.Generator | None = None,
    *,
    estimators: Sequence[str] = ("bp", "lr", "alr"),
    starts: int = 1,
    seeds: int = 4,
    steps: int = 40,
    every: int = 1,
    dims: int = 2,
    lr: float = 0.02,
    noise: float = 1.0,
    diverge: Mapping[tuple[str, int, int], int] | None = None,
    minima: bool = True,
    local_minima: bool = True,
    domain: bool = True,
    tuned: bool = False,
    grid: int = 25,
) -> xr.Dataset:
    """A path of known truth, as :mod:`gradprobe.store.paths` describes it.

    Estimators see the same noise (paired); the i-th one's has standard deviation (i + 1) ``noise``. Those named
    in ``DETERMINISTIC`` have none. "alr" returns the sign of what it sees.

    Args:
        rng: Random generator; default: one with seed 0.
        estimators: Their names.
        starts: Number of starts; with one, there is no dimension ``start``.
        seeds: Number of seeds.
        steps: Steps of each descent.
        every: Every how many steps are recorded; the last one always is.
        dims: Variables of the function; the surface is there for two of them only.
        lr: Learning rate.
        noise: Scale of the noise on a direction.
        diverge: (estimator, start, seed) -> step at which the position becomes infinite.
        minima: Whether minima are known.
        local_minima: Whether the local one is among them.
        domain: Whether the domain is known.
        tuned: Whether learning rates come from a table of scores.
        grid: Points of the surface along each axis.
    """
    rng = rng or np.random.default_rng(0)
    begin = np.array([[*BEGIN[i % len(BEGIN)], *[1.0] * (dims - 2)][:dims] for i in range(starts)])
    begin += 0.01 * (np.arange(starts) // len(BEGIN))[:, None]
    drawn = rng.standard_normal((starts, seeds, steps, dims))
    rows = []
    for i, name in enumerate(estimators):
        scale = 0.0 if name in DETERMINISTIC else (i + 1) * noise
        lost = {k[1:]: v for k, v in (diverge or {}).items() if k[0] == name}
        rows.append(_descend(begin, scale * drawn, lr, name == "alr", lost))
    kept = np.unique(np.append(np.arange(0, steps + 1, every), steps))
    shaped = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    shaped = {k: v[:, :, :, kept] if v.ndim > 3 else v for k, v in shaped.items()}
    known = ([GLOBAL] if minima else []) + ([LOCAL] if minima and local_minima else [])
    spots = np.zeros((len(known), dims))
    spots[:, 0] = known
    gap = shaped["position"] - np.eye(1, dims)[0] * GLOBAL
    shaped["distance"] = np.sqrt((gap**2).sum(-1)) * (1.0 if minima else np.nan)
    axes = ("estimator", "start", "seed", "step", "coordinate")
    ds = xr.Dataset({k: (axes[: v.ndim], v) for k, v in shaped.items()})
    price = np.array([1.0 if e in DETERMINISTIC else 16.0 * (i + 1) for i, e in enumerate(estimators)])
    ds["forwards"] = (("estimator", "step"), price[:, None] * kept)
    ds["lr"] = ("estimator", np.full(len(estimators), lr))
    ds["start_position"] = (("start", "coordinate"), begin)
    ds["minimum_position"] = (("minimum", "coordinate"), spots)
    ds = ds.assign_coords(_coordinates(estimators, starts, seeds, kept, dims, len(known), noise))
    if dims == 2:
        ds = _with_surface(ds, grid)
    if tuned:
        ds = ds.assign_coords(rate=lr * np.array([0.25, 0.5, 1.0, 2.0, 4.0]))
        ds["tuning_score"] = (("estimator", "rate"), np.tile([0.5, 0.1, -1.0, 0.3, np.inf], (len(rows), 1)))
    ds.attrs = _facts(dims, every, minima, domain, tuned)
    return ds if starts > 1 else ds.isel(start=0, drop=True)


def _descend(
    begin: np.ndarray, noise: np.ndarray, lr: float, sign: bool, lost: Mapping[tuple[int, int], int]
) -> dict[str, np.ndarray]:
    """One estimator's variables ``[start, seed, ...]`` at every step."""
    starts, seeds, steps, dims = noise.shape
    position = np.empty((starts, seeds, steps + 1, dims))
    position[:, :, 0] = begin[:, None]
    direction = np.full_like(position, np.nan)
    for k in range(steps):
        seen = slope(position[:, :, k]) + noise[:, :, k]
        direction[:, :, k] = np.sign(seen) if sign else seen
        position[:, :, k + 1] = position[:, :, k] - lr * direction[:, :, k]
    diverged = np.full((starts, seeds), np.nan)
    for (start, seed), step in lost.items():
        diverged[start, seed] = step
        position[start, seed, step:] = np.nan
        position[start, seed, step] = np.inf
        direction[start, seed, step:] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        gradient = slope(position)
        dot = (direction * gradient).sum(-1)
        norm = (gradient**2).sum(-1)
        return {
            "position": position,
            "direction": direction,
            "gradient": gradient,
            "loss": value(position),
            "cosine": dot / np.sqrt(norm * (direction**2).sum(-1)),
            "gain": dot / norm,
            "diverged": diverged,
            "lost": np.zeros((starts, seeds)),
        }


def _coordinates(
    estimators: Sequence[str],
    starts: int,
    seeds: int,
    kept: np.ndarray,
    dims: int,
    minima: int,
    noise: float,
) -> dict[str, object]:
    noisy = [e not in DETERMINISTIC for e in estimators]
    return {
        "estimator": list(estimators),
        "start": np.arange(starts),
        "seed": np.arange(seeds),
        "step": kept,
        "coordinate": np.arange(dims),
        "color": ("estimator", [COLORS[i % len(COLORS)] for i in range(len(noisy))]),
        "target": ("estimator", ["surrogate" if e == "alr" else "exact" for e in estimators]),
        "summary": ("estimator", [f"synthetic {e}" for e in estimators]),
        "stochastic": ("estimator", noisy),
        "sigma": ("estimator", [noise if n else np.nan for n in noisy]),
        "shrinks": ("estimator", [noise * HALF_NORMAL if e == "alr" else np.nan for e in estimators]),
        "minimum_kind": ("minimum", np.array(["global", "local"][:minima], dtype=str)),
    }


def _with_surface(ds: xr.Dataset, grid: int) -> xr.Dataset:
    x, y = (np.linspace(*box, grid) for box in WHERE)
    points = np.stack(np.meshgrid(x, y), axis=-1)
    return ds.assign_coords(x=x, y=y).assign(surface=(("y", "x"), value(points)))


def _facts(dims: int, every: int, minima: bool, domain: bool, tuned: bool) -> dict[str, object]:
    box = [list(WHERE[min(i, 1)]) for i in range(dims)]
    return {
        "kind": "path",
        "function": "two wells",
        "source": "tests",
        "minimum_value": VALUE if minima else np.nan,
        "domain": json.dumps(box if domain else None),
        "optimizer": "sgd",
        "step_rule": "raw",
        "bounds": "none",
        "clip": "none",
        "decay": "none",
        "copies": 16,
        "sigma": 0.01,
        "lr_rule": "tuned" if tuned else "given",
        "tuning": json.dumps({"seeds": 5, "steps": 40, "criterion": "loss"} if tuned else None),
        "root_seed": 0,
        "every": every,
        "constant_input": 1,
    }
