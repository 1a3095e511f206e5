"""Slopes of the loss along a line through a layer's parameters, by central differences and by backprop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from gradprobe.problems.problem import Problem

FINE = (1e-4, 1e-5, 1e-6, 1e-7, 1e-3)
"""Steps in float64, in spreads of the weights; tried in this order."""

COARSE = (1e-3, 3e-4, 3e-3, 1e-2, 1e-4)
"""Steps in float32 and below: errors of rounding (eps / h) and of curvature (h^2) are alike near the first."""

TOLERANCE = {True: 1e-3, False: 2e-2}
"""Difference over a typical slope up to which slopes agree: in float64, and in lower precision."""

ULPS = 16
"""Rounding of a loss, in units of its type's eps times the loss."""


@dataclass
class Line:
    """A line through the parameters of a layer.

    Attributes:
        problem: The problem.
        direction: Parameter -> direction; a step of 1 moves weights by about their own spread.
        expected: Backprop's slope along it.
        scale: Size that a slope along such a line has.
        losses: Losses without noise, float64.
    """

    problem: Problem
    direction: dict[str, torch.Tensor]
    expected: float
    scale: float
    losses: torch.Tensor

    @property
    def wide(self) -> bool:
        """Whether it is in float64."""
        return next(iter(self.direction.values())).dtype == torch.float64

    @property
    def steps(self) -> tuple[float, ...]:
        """Steps to try."""
        return FINE if self.wide else COARSE

    def at(self, step: float) -> torch.Tensor:
        """Losses at a place on the line, float64."""
        values = self.problem.parameters
        moved = {n: torch.add(values[n], d, alpha=step) for n, d in self.direction.items()}
        with torch.no_grad():
            return self.problem.evaluate(moved).double()

    def slope(self, step: float) -> float:
        """Central difference."""
        return float(self.problem.total(self.at(step) - self.at(-step))) / (2 * step)

    def bend(self, step: float) -> float:
        """Slope ahead minus slope behind."""
        ahead, behind = self.at(step) - self.losses, self.losses - self.at(-step)
        return float(self.problem.total(ahead - behind)) / step

    def rounding(self, step: float) -> float:
        """What rounding may do to a central difference."""
        eps = max(torch.finfo(d.dtype).eps for d in self.direction.values())
        return ULPS * eps * float(self.problem.total(self.losses.abs())) / step


def make_line(problem: Problem, gradient: dict[str, torch.Tensor], losses: torch.Tensor) -> Line:
    """A random line through a layer's parameters, of unit spread relative to theirs.

    In float64 the direction is random alone, so that errors of every kind show; in lower precision, where only large
    slopes rise above rounding, the gradient's own direction is added to it in equal parts.

    Args:
        problem: The problem, in whichever precision.
        gradient: Backprop's gradient of the layer's parameters.
        losses: Losses without noise, float64.
    """
    values = problem.parameters
    generator = torch.Generator().manual_seed(0)
    length = sum(float((g.double() ** 2).sum()) for g in gradient.values()) ** 0.5
    numel = sum(g.numel() for g in gradient.values())
    square = sum(float((values[n].double() ** 2).sum()) for n in gradient) / max(numel, 1)
    spread = square**0.5 if 0 < square < float("inf") else 1.0
    direction, wide = {}, True
    for name, g in gradient.items():
        wide = wide and values[name].dtype == torch.float64
        random = torch.randn(g.shape, generator=generator).to(values[name])
        own = 0.0 if wide or not length else g.to(values[name]) * (numel**0.5 / length)
        direction[name] = spread * (random + own)
    expected = sum(float((gradient[n].double() * d.double()).sum()) for n, d in direction.items())
    scale = spread * length * (1.0 if wide else max(numel, 1) ** 0.5)
    return Line(problem, direction, expected, scale, losses)


@dataclass(frozen=True)
class Slopes:
    """What holding slopes against each other gave.

    Attributes:
        verdict: ``"agrees"``, ``"kink"`` (at a smaller step only), ``"corner"`` (the loss has a bend exactly here and
            backprop's slope lies between those of its sides), ``"unresolved"`` (below rounding) or ``"differs"``.
        expected: Backprop's slope.
        found: The central difference that decided.
        step: Its step.
    """

    verdict: str
    expected: float
    found: float
    step: float


def one_step(line: Line, step: float) -> Slopes:
    """Hold backprop's slope against one central difference: "agrees", "unresolved" or "differs"."""
    tolerance, rounding, found = TOLERANCE[line.wide] * line.scale, line.rounding(step), line.slope(step)
    if not abs(found - line.expected) <= tolerance + rounding:
        return Slopes("differs", line.expected, found, step)
    blind = line.scale > 0 and rounding > 0.1 * line.scale
    return Slopes("unresolved" if blind else "agrees", line.expected, found, step)


def compare(line: Line) -> Slopes:
    """Hold backprop's slope against central differences, step after step, until one agrees.

    They differ if no step agrees and the differences themselves have settled: two neighbouring steps give the same.
    """
    steps = line.steps
    tried: list[Slopes] = []
    for step in steps:
        found = one_step(line, step)
        if found.verdict == "agrees":
            return replace(found, verdict="kink") if tried and step < steps[0] else found
        tried.append(found)
    tolerance = TOLERANCE[line.wide] * line.scale
    apart = sorted((x for x in tried if x.verdict == "differs"), key=lambda x: x.step)
    for small, large in pairwise(apart):
        off = abs(small.found - line.expected)
        spread = abs(small.found - large.found)
        if spread <= 0.25 * off + line.rounding(small.step):
            return replace(small, verdict="corner") if _corner(line, small, tolerance) else small
    return replace(tried[0], verdict="unresolved")


def _corner(line: Line, at: Slopes, tolerance: float) -> bool:
    """Whether the loss has a bend here, of a size that does not depend on the step, around backprop's slope."""
    bend, wider = line.bend(at.step), line.bend(10 * at.step)
    steady = abs(bend - wider) <= 0.1 * abs(bend) + line.rounding(at.step)
    inside = abs(at.expected - at.found) <= abs(bend) / 2 + tolerance + line.rounding(at.step)
    return abs(bend) > tolerance and steady and inside
