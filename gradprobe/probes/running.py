"""A unit while it is computed: it grows by blocks, and gives and takes its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradprobe.estimators.blockread import Read
from gradprobe.probes.moments import Moments
from gradprobe.probes.plan import OWN, Task
from gradprobe.probes.references import Reference
from gradprobe.probes.settings import Settings
from gradprobe.store.schema import REFERENCE_SCALARS, Unit
from gradprobe.store.state import State, Wanted

Directions = Mapping[str, torch.Tensor]


def wanted(task: Task, settings: Settings) -> Wanted:
    """What a kept state must be of, to be of use to a task."""
    smoothed = "smoothed" in settings.references and task.smooths
    return Wanted(
        key=task.key,
        readouts=tuple(task.readouts) or (OWN,),
        parameters=task.parameters,
        sizes=tuple(int(np.prod(shape)) for layer in task.layers for shape in layer.shapes),
        block=settings.block,
        references=task.held(settings.references),
        reference_copies=settings.copies_behind(task.key.group) if smoothed else 0,
        extras=task.extras(settings.per_sample),
    )


def failed_unit(of: Wanted, blocks: int, why: str, **known: Any) -> Unit:
    """A failed unit: NaN, except for what is known all the same.

    Args:
        of: What should have been computed.
        blocks: How many blocks it should have had.
        why: What went wrong.
        **known: Fields of :class:`Unit`.
    """
    many, rows, width = len(of.references), len(of.readouts), len(of.parameters)
    shapes = {
        "dot": (many, rows, width, blocks),
        "sqnorm": (rows, width, blocks),
        "block_sqnorm": (rows, width, blocks),
        **dict.fromkeys(("forwards", "equivalents", "nonfinite"), (blocks,)),
        **dict.fromkeys(REFERENCE_SCALARS, (many, width)),
    }
    nothing = {name: np.full(shape, np.nan) for name, shape in shapes.items() if name not in known}
    return _unit(of, "failed", why, **known, **nothing)


def _unit(of: Wanted, status: str, note: str, **arrays: Any) -> Unit:
    return Unit(
        key=of.key,
        readouts=of.readouts,
        parameters=of.parameters,
        block=of.block,
        references=of.references,
        status=status,
        note=note,
        **arrays,
    )


@dataclass
class Running:
    """Moments of every read-out so far.

    Attributes:
        task: What is computed.
        of: What its states are of.
        references: Reference name -> direction with its own moments.
        nonfinite: Copies that each block lost.
        forwards: Forward passes up to the end of each block, which are booked for an estimator without draws.
        seconds: Time that earlier processes took.
        share: Of a forward that a copy of a draw needs.
        bytes: Of a copy's intermediates ``[2]``, most of any block; see :class:`Read`.
        extras: Sums over blocks of further numbers ``[R, P, ...]``, by name.
    """

    task: Task
    of: Wanted
    references: Mapping[str, Reference]
    nonfinite: list[float] = field(default_factory=list)
    forwards: list[float] = field(default_factory=list)
    seconds: float = 0.0
    share: float = 1.0
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    bytes: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))

    def __post_init__(self) -> None:
        directions = {name: r.direction for name, r in self.references.items()}
        self._moments = [Moments(self.of.parameters, directions) for _ in self.of.readouts]

    @property
    def blocks(self) -> int:
        """Blocks so far."""
        return len(self.nonfinite)

    def add(self, read: Read, forwards: float) -> None:
        """Add the next block, with forwards up to its end."""
        for moments, found in zip(self._moments, read.directions, strict=True):
            moments.add(found)
        for name in self.of.extras:
            new = np.stack([extras[name] for extras in read.extras])
            self.extras[name] = self.extras[name] + new if name in self.extras else new
        self.bytes = np.fmax(self.bytes, read.bytes)
        self.nonfinite.append(read.nonfinite)
        self.forwards.append(forwards)

    def resume(self, state: State, like: Directions) -> None:
        """Go on from a state; ``like`` has the shapes and the device of the parameters."""
        u = state.unit
        for r, moments in enumerate(self._moments):
            rows = {"dot": u.dot[:, r], "sqnorm": u.sqnorm[r], "block_sqnorm": u.block_sqnorm[r]}
            moments.resume(like, state.sums[r], state.squares[r], rows)
        self.nonfinite = [float(n) for n in np.diff(u.nonfinite, prepend=0.0)]
        self.forwards = [float(n) for n in u.forwards]
        self.seconds = u.seconds
        self.bytes = np.array([u.kept_bytes, u.plain_bytes])
        self.extras = dict(state.extras)

    def state(self, unit: Unit) -> State:
        """The state, with the unit so far."""
        return State(
            unit=unit,
            sums=np.stack([m.sums() for m in self._moments]),
            squares=np.stack([m.squares() for m in self._moments]),
            sizes=self.of.sizes,
            reference_copies=self.of.reference_copies,
            extras=self.extras,
        )

    def unit(self, status: str, note: str, seconds: float, count: int) -> Unit:
        """The unit so far, or a failed one of ``count`` blocks."""
        boundaries = self.of.block * np.arange(1.0, count + 1)
        lost = self.nonfinite + [0] * (count - self.blocks)
        known: dict[str, Any] = {
            "seconds": self.seconds + seconds,
            "forwards": boundaries * (1 if self.task.draw is None else self.task.draw.passes),
            "equivalents": self.share * boundaries,
            "kept_bytes": float(self.bytes[0]),
            "plain_bytes": float(self.bytes[1]),
            "nonfinite": np.cumsum(np.array(lost, dtype=np.float64)),
            **self._reference_arrays(),
        }
        own = self.task.estimator
        if (
            own is not None and self.task.drawn
        ):  # booked as draws are: what trial runs of engines take is no copy's
            known["forwards"] = boundaries * (own.forwards(self.task.layers, 1) - 1)
        elif own is not None:
            known["forwards"] = np.array(self.forwards + [np.nan] * (count - self.blocks))
            known["equivalents"] = known["forwards"] * (3 if own.uses_backward else 1)
        if status == "failed":
            return failed_unit(self.of, count, note, **known)
        known["extras"] = {name: value / self.blocks for name, value in self.extras.items()}
        return _unit(self.of, status, note, **known, **self._arrays())

    def _arrays(self) -> dict[str, Any]:
        each = [m.arrays() for m in self._moments]
        found = {name: np.stack([a[name] for a in each]) for name in ("sqnorm", "block_sqnorm")}
        return found | {"dot": np.stack([a["dot"] for a in each], axis=1)}

    def _reference_arrays(self) -> dict[str, Any]:
        found, own = self.references.values(), self.references["bp"].direction
        names = self.of.parameters
        arrays: dict[str, Any] = {
            "reference_sqnorm": [[float((r.direction[p] ** 2).sum()) for p in names] for r in found],
            "reference_block_sqnorm": [r.block_sqnorm for r in found],
            "reference_blocks": [[r.blocks] * len(names) for r in found],
            "reference_dot": [[float((r.direction[p] * own[p]).sum()) for p in names] for r in found],
        }
        return {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
