"""Where descending a field of two variables stops: its zeros, and on the edge of the domain where it is projected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gradprobe.problems.landscape import Function
from gradprobe.trajectory.means import Field

Array = npt.NDArray[np.float64]

FINE = 121
"""Points along each variable of the grid that zeros are looked for on."""

SMALL = 1e-9
"""A zero is where the field is smaller than this share of its median length on the grid."""

FLAT = 1e-14
"""Where the field is smaller than this share of its largest length at more than one point the function is flat."""

ROUNDING = 1e-9
"""How far beyond an edge a zero on it may be found, relative to the domain."""

STEP = 1e-4
"""Step of the differences that tell whether a zero is stable, relative to the domain."""

TRIES = 80
"""Evaluations of the field from one candidate at most."""

APART = 1e-3
"""Zeros closer than this share of the domain's diagonal are one."""


@dataclass(frozen=True)
class Zero:
    """Where descending a field stops.

    Attributes:
        position: Where.
        stable: Whether what starts near it comes back (both eigenvalues of the field's Jacobian have positive real
            parts; on an edge: the field points out of the domain and, along the edge, towards this point).
        boundary: Whether it is on the edge of the domain, where the field itself is not 0.
    """

    position: tuple[float, float]
    stable: bool
    boundary: bool = False


def find_zeros(field: Field, function: Function) -> list[Zero]:
    """Isolated zeros of a field inside the domain, and the stable points of its projected descent on the edge.

    Candidates are the cells of a fine grid where both components change sign, the grid's local minima of length, and
    the known minima; each is refined by Powell's hybrid method. Two zeros within a cell may be taken for one.

    Args:
        field: Points ``[k, 2]`` -> vectors ``[k, 2]``.
        function: The function, with its domain.
    """
    assert function.domain is not None
    box = np.array(function.domain)
    axes = [np.linspace(low, high, FINE) for low, high in box]
    grid = np.stack(np.meshgrid(*axes), -1)
    vectors = field(torch.from_numpy(grid.reshape(-1, 2))).numpy().reshape(grid.shape)
    lengths = np.linalg.norm(vectors, axis=-1)
    small = SMALL * float(np.nanmedian(lengths)) if np.isfinite(lengths).any() else 0.0
    guesses = [*_candidates(grid, vectors, lengths, small), *np.array(function.minima).reshape(-1, 2)]
    found: list[Zero] = []
    for guess in guesses:
        root = _refined(field, guess, small)
        if root is None or not (np.abs(root - root.clip(*box.T)) <= ROUNDING * (box[:, 1] - box[:, 0])).all():
            continue
        root = root.clip(*box.T)
        if not _isolated(field, root, box, small):
            continue
        if all(
            np.linalg.norm(root - z.position) > APART * np.linalg.norm(box[:, 1] - box[:, 0]) for z in found
        ):
            found.append(Zero((float(root[0]), float(root[1])), _stable(field, root, box)))
    return found + list(_edges(field, box, small))


def _candidates(grid: Array, vectors: Array, lengths: Array, small: float) -> Iterator[Array]:
    """Centres of cells where both components change sign, and points where the field is shorter than around."""
    corners = np.stack([vectors[:-1, :-1], vectors[1:, :-1], vectors[:-1, 1:], vectors[1:, 1:]])
    change = (corners.min(0) <= small) & (corners.max(0) >= -small)
    flat = FLAT * np.max(lengths, where=np.isfinite(lengths), initial=0.0)
    nought = lengths <= flat
    several = nought[:-1, :-1] * 1 + nought[1:, :-1] + nought[:-1, 1:] + nought[1:, 1:] > 1
    centres = (grid[:-1, :-1] + grid[1:, 1:]) / 2
    yield from centres[change.all(-1) & ~several]
    inner = lengths[1:-1, 1:-1]
    around = [
        lengths[1 + i : FINE - 1 + i, 1 + j : FINE - 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
    ]
    low = (inner < np.min(around, axis=0)) & (np.min(around, axis=0) > flat)
    yield from grid[1:-1, 1:-1][low]


def _at(field: Field, point: Sequence[float] | Array) -> Array:
    return np.asarray(field(torch.tensor(np.asarray(point, dtype=np.float64))[None])[0].numpy())


def _refined(field: Field, guess: Array, small: float) -> Array | None:
    from scipy import optimize

    if not small > 0:
        return None
    done = optimize.root(
        lambda x: _at(field, x) / small * SMALL, guess, options={"maxfev": TRIES, "xtol": 1e-13}
    )
    root = np.asarray(done.x)
    return root if np.isfinite(root).all() and np.linalg.norm(_at(field, root)) <= small else None


def _isolated(field: Field, root: Array, box: Array, small: float) -> bool:
    """Whether the field is not 0 a cell of the grid further: on a plateau every point is a zero."""
    cells = np.diag((box[:, 1] - box[:, 0]) / (FINE - 1))
    around = [np.linalg.norm(_at(field, root + sign * cell)) for cell in cells for sign in (1, -1)]
    return not any(length <= small for length in around)


def _stable(field: Field, root: Array, box: Array) -> bool:
    steps = STEP * (box[:, 1] - box[:, 0])
    columns = [
        (_at(field, root + step) - _at(field, root - step)) / (2 * h)
        for h, step in zip(steps, np.diag(steps), strict=True)
    ]
    jacobian = np.stack(columns, 1)
    return bool(np.isfinite(jacobian).all() and (np.linalg.eigvals(jacobian).real > 0).all())


def _edges(field: Field, box: Array, small: float) -> Iterator[Zero]:
    """Stable points of the projected descent on the edges and in the corners of the domain."""
    for fixed in (0, 1):
        free = 1 - fixed
        low, high = box[free]
        along = np.linspace(low, high, FINE)
        for side, end in enumerate(box[fixed]):
            points = np.empty((FINE, 2))
            points[:, fixed], points[:, free] = end, along
            slope = field(torch.from_numpy(points)).numpy()[:, free]
            for first, last in _turns(np.where(np.abs(slope) <= small, 0.0, slope)):
                point = _along(field, points[first], points[last], free)
                if _outward(_at(field, point)[fixed], side, small):
                    yield Zero((float(point[0]), float(point[1])), True, True)
    for i, x in enumerate(box[0]):
        for j, y in enumerate(box[1]):
            if all(_outward(v, side, small) for v, side in zip(_at(field, (x, y)), (i, j), strict=True)):
                yield Zero((float(x), float(y)), True, True)


def _turns(slope: Array) -> Iterator[tuple[int, int]]:
    """Neighbours on an edge between which its component turns from below 0 to above, at one point."""
    for k in np.flatnonzero(slope[:-1] < 0).tolist():
        if slope[k + 1] > 0:
            yield k, k + 1
        elif slope[k + 1] == 0 and (k + 2 == len(slope) or slope[k + 2] > 0):
            yield k + 1, k + 1
    if slope[0] == 0 and slope[1] > 0:
        yield 0, 0


def _outward(component: float, side: int, small: float) -> bool:
    """Whether descending leaves the domain across its low (0) or high (1) end."""
    return component > small if side == 0 else component < -small


def _along(field: Field, first: Array, last: Array, free: int) -> Array:
    """Between two points of an edge, where the field has no component along it."""
    from scipy import optimize

    def slope(value: float) -> float:
        point = first.copy()
        point[free] = value
        return float(_at(field, point)[free])

    point = first.copy()
    if first[free] < last[free]:
        point[free] = optimize.brentq(slope, first[free], last[free])
    return point
