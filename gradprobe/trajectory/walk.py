"""Walkers that descend a function together, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gradprobe.problems.landscape import Function
from gradprobe.trajectory.sources import Source, where_finite
from gradprobe.trajectory.stepping import Factory, Stepper

POSITION = ("position", "direction", "gradient")
SCALAR = ("loss", "cosine", "gain", "distance")

EXACT = "donot_use_mm_for_euclid_dist"
"""Distances of many walkers as of one: matrix products would lose half of the digits."""


@dataclass(frozen=True)
class Rules:
    """How walkers move, whatever their directions are.

    Attributes:
        optimizer: Makes the optimiser.
        steps: Number of steps.
        decay: The rate of step k is ``lr / (1 + decay k)``.
        step: ``"raw"``, or ``"normalised"``: directions are divided by their length first.
        clip: Longest direction that is not shortened; None for no clipping.
        bounds: ``"project"``: positions are moved to the nearest point of the domain after each step.
        every: Every how many steps are recorded; the first and the last always are.
    """

    optimizer: Factory
    steps: int
    decay: float = 0.0
    step: str = "raw"
    clip: float | None = None
    bounds: str | None = None
    every: int = 1

    @property
    def recorded(self) -> list[int]:
        """Numbers of the steps that are recorded."""
        return sorted({*range(0, self.steps + 1, self.every), self.steps})

    def shaped(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions ``[W, d]`` as the optimiser gets them."""
        if self.step == "raw" and self.clip is None:
            return directions
        length, unit = _polar(directions)
        if self.step == "normalised":
            return unit
        assert self.clip is not None
        return torch.where(length[:, None] > self.clip, self.clip * unit, directions)


@dataclass
class Walked:
    """What was recorded of W walkers at R steps.

    Attributes:
        values: ``position``, ``direction``, ``gradient`` ``[W, R, d]``; ``loss``, ``cosine``, ``gain``, ``distance``
            ``[W, R]``. NaN after a walker's position or loss was not finite, and for the direction of the last step.
        diverged: First step of which position or loss is not finite; NaN if there is none ``[W]``.
        lost: Noisy evaluations that counted as 0 before that ``[W]``; NaN if unknown.
    """

    values: dict[str, torch.Tensor] = field(default_factory=dict)
    diverged: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    lost: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def joined(cls, parts: list[Walked]) -> Walked:
        """Walkers one after another."""
        values = {k: torch.cat([p.values[k] for p in parts]) for k in parts[0].values}
        return cls(values, torch.cat([p.diverged for p in parts]), torch.cat([p.lost for p in parts]))


def walk(
    function: Function,
    source: Source,
    starts: torch.Tensor,
    rates: torch.Tensor,
    rules: Rules,
    tick: Callable[[float], None] = lambda share: None,
) -> Walked:
    """Descend from each start.

    Args:
        function: The function.
        source: Directions.
        starts: ``[W, d]``, float64.
        rates: Learning rate of each walker, ``[W]``.
        rules: How they move.
        tick: Told the share of steps that is done.
    """
    recorder = Recorder(function, len(starts), rules.recorded)
    stepper = Stepper(rules.optimizer, starts, rates, rules.decay)
    box = None
    if rules.bounds == "project":
        box = torch.tensor(function.domain, dtype=torch.float64)
    positions = starts.clone()
    for step in range(rules.steps + 1):
        with torch.no_grad():
            losses = where_finite(function.values, positions)
        recorder.losses(step, positions, losses)
        if step == rules.steps:
            break
        directions, lost = source.directions(positions, losses, step)
        recorder.directions(step, directions, lost)
        positions = stepper.step(positions, rules.shaped(directions), step)
        if box is not None:
            positions = positions.clamp(box[:, 0], box[:, 1])
        positions[~recorder.alive] = torch.nan
        tick((step + 1) / rules.steps)
    return recorder.walked


class Recorder:
    """Keeps what is recorded of walkers as they go.

    Args:
        function: The function.
        walkers: How many.
        steps: Which steps.
    """

    def __init__(self, function: Function, walkers: int, steps: list[int]) -> None:
        self.function = function
        self.place = {step: at for at, step in enumerate(steps)}
        shape = (walkers, len(steps))
        values = {k: _nan(*shape, function.dims) for k in POSITION} | {k: _nan(*shape) for k in SCALAR}
        self.alive = torch.ones(walkers, dtype=torch.bool)
        self.walked = Walked(values, _nan(walkers), torch.zeros(walkers, dtype=torch.float64))
        self.minima = torch.tensor(function.minima, dtype=torch.float64) if function.minima else None

    def losses(self, step: int, positions: torch.Tensor, losses: torch.Tensor) -> None:
        """Where walkers are, and what the function is there."""
        finite = losses.isfinite() & positions.isfinite().all(1)
        self.walked.diverged[self.alive & ~finite] = step
        if step in self.place:
            at, values = self.place[step], self.walked.values
            rows = self.alive
            values["position"][rows, at] = positions[rows]
            values["loss"][rows, at] = losses[rows]
            values["gradient"][rows, at] = where_finite(self.function.gradient, positions[rows])
            if self.minima is not None:
                values["distance"][rows, at] = torch.cdist(
                    positions[rows], self.minima, compute_mode=EXACT
                ).amin(1)
        self.alive &= finite

    def directions(self, step: int, directions: torch.Tensor, lost: torch.Tensor) -> None:
        """What the estimator said there."""
        self.walked.lost += torch.where(self.alive, lost, 0.0)
        if step not in self.place:
            return
        at, values = self.place[step], self.walked.values
        values["direction"][self.alive, at] = directions[self.alive]
        size, unit = _polar(values["direction"][:, at])
        true_size, true_unit = _polar(values["gradient"][:, at])
        cosine = (unit * true_unit).sum(1)
        values["cosine"][:, at] = torch.where((size > 0) & (true_size > 0), cosine, torch.nan)
        values["gain"][:, at] = torch.where(true_size > 0, cosine * (size / true_size), torch.nan)


def _polar(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lengths ``[W]`` and unit vectors ``[W, d]``, also where squares are too large or small for a number."""
    most = vectors.abs().amax(1, keepdim=True)
    scaled = torch.where(most == 0, 0.0, vectors / most)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return (most * length)[:, 0], torch.where(most == 0, 0.0, scaled / length)


def _nan(*shape: int) -> torch.Tensor:
    return torch.full(shape, torch.nan, dtype=torch.float64)
