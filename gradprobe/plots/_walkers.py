"""Which walkers of a path are shown, how each method looks, and what is to be said about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import unknown
from gradprobe.plots._style import MARKERS
from gradprobe.plots._surface import Frame, frame, inside
from gradprobe.store.paths import check_kind, with_starts

DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.2, 1.2, 1.2)),
    (0, (8, 2)),
    (0, (3, 3)),
)


@dataclass(frozen=True)
class Method:
    """How one method looks in all figures of a path: by its place in the path, so that a choice changes nothing."""

    label: str
    color: str
    rank: int
    stochastic: bool

    @property
    def marker(self) -> dict[str, Any]:
        """A filled shape of its own, so that colour is not the only difference."""
        return {
            "marker": MARKERS[self.rank % len(MARKERS)],
            "markerfacecolor": self.color,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
        }

    @property
    def dashes(self) -> Any:
        """A style of lines of its own."""
        return DASHES[self.rank % len(DASHES)]


def methods(path: xr.Dataset) -> list[Method]:
    """All methods of a path, in its order."""
    values = (path[k].values for k in ("estimator", "color", "stochastic"))
    found = zip(*values, strict=True)
    return [Method(str(e), str(c), i, bool(noisy)) for i, (e, c, noisy) in enumerate(found)]


def one_start(path: Any, start: int) -> xr.Dataset:
    """The path from one start, without that dimension.

    Raises:
        UsageError: It is no path, or has no such start.
    """
    wide = with_starts(check_kind(path, "path"))
    known = list(wide["start"].values)
    if start not in known:
        raise unknown("start", start, [str(s) for s in known])
    chosen = wide.isel(start=known.index(start), drop=True)
    return chosen.transpose("estimator", "seed", "step", ..., "coordinate")


def seed_index(path: xr.Dataset, seed: int | None) -> int:
    """Place of a seed along the path; of the first one by default.

    Raises:
        UsageError: There is no such seed.
    """
    known = list(path["seed"].values)
    if seed is None:
        return 0
    if seed not in known:
        raise unknown("seed", seed, [str(s) for s in known])
    return known.index(seed)


def within_reach(positions: np.ndarray, sides: Frame, reach: float = 1e4) -> np.ndarray:
    """Positions as floats that a renderer can hold: NaN beyond many frames from the frame."""
    low, high = np.array(sides).T
    far = np.abs(positions - (low + high) / 2) > reach * (high - low)
    return np.where(far.any(axis=-1, keepdims=True), np.nan, positions)


def last(positions: np.ndarray) -> np.ndarray:
    """Last finite position ``[..., coordinate]`` of each walker ``[..., step, coordinate]``."""
    there = np.isfinite(positions).all(axis=-1)
    at = there.shape[-1] - 1 - there[..., ::-1].argmax(axis=-1)
    return np.take_along_axis(positions, at[..., None, None], axis=-2)[..., 0, :]


def diverged(path: xr.Dataset) -> dict[str, int]:
    """Number of walkers of each method that diverged."""
    gone = np.isfinite(path["diverged"].transpose("estimator", ...).values)
    return {m.label: int(gone[m.rank].sum()) for m in methods(path)}


def left(path: xr.Dataset) -> dict[str, int]:
    """Number of walkers of each method that were outside the frame at some recorded step."""
    positions = path["position"].transpose("estimator", ..., "step", "coordinate").values
    out = np.isfinite(positions).all(axis=-1) & ~inside(positions, frame(path))
    return {m.label: int(out[m.rank].any(axis=-1).sum()) for m in methods(path)}


def counted(found: dict[str, int], total: int, what: str, never: str) -> str:
    """A sentence such as "3 of 100 walkers of lr, 1 of es diverged."."""
    some = {k: v for k, v in found.items() if v}
    if not some:
        return never
    (first, count), *others = some.items()
    said = [f"{count} of {total} walkers of {first}", *(f"{n} of {k}" for k, n in others)]
    return f"{', '.join(said)} {what}."


def point(values: Any) -> str:
    """A point as text: "(-3, 2)"."""
    return "(" + ", ".join(f"{float(v):.4g}" for v in values) + ")"


def known(path: xr.Dataset, name: str) -> Any:
    """An attribute, or None where it says that there is nothing."""
    given = path.attrs.get(name)
    nothing = given in (None, "", "null", "none", "None", False)
    return None if nothing or (isinstance(given, float) and not math.isfinite(given)) else given
