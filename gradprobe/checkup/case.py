"""What checks look at, and what they share so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.checkup.marks import Marks, marks_of
from gradprobe.checkup.precise import in_float64
from gradprobe.checkup.shake import Shaken, shake
from gradprobe.checkup.walk import Walk, walk
from gradprobe.core.layer import Layer
from gradprobe.core.rows import moved
from gradprobe.engine.draw import Draw
from gradprobe.engine.memory import bytes_of_forward
from gradprobe.problems.problem import Problem

Unit = tuple[Draw, tuple[Layer, ...]]
"""A draw, and the layers that are noisy together under it."""


@dataclass
class Case:
    """A problem that is looked at.

    Attributes:
        problem: The problem, frozen.
        layers: The layers that are looked at.
        every: All layers that run.
        unused: Names of layers that never run.
        units: What is to be drawn.
        asked: Layer -> where noise is asked for (``"activations"``, ``"weights"``), even in vain.
        gradient: Backprop's gradient of all layers by parameter.
        quick: Whether this is the look before a probe, which must be cheap.
        memory: Bytes that the look may use; None for half of what is free.
    """

    problem: Problem
    layers: Sequence[Layer]
    every: Sequence[Layer]
    unused: Sequence[str]
    units: Sequence[Unit]
    asked: Mapping[str, set[str]]
    gradient: Mapping[str, torch.Tensor]
    quick: bool = False
    memory: int | None = None
    _kept: dict[Any, Any] = field(default_factory=dict)
    before: Marks = field(init=False)

    def __post_init__(self) -> None:
        self.before = marks_of(self.problem)

    @property
    def clean(self) -> torch.Tensor:
        """Losses without noise, float64: ``[B]`` or ``[]``."""
        return self.problem.clean_losses()

    @property
    def precise(self) -> Problem | None:
        """The problem in float64; None where that is not possible."""
        return self.once("precise", lambda: in_float64(self.problem, self.every, self.memory))

    @property
    def precise_clean(self) -> torch.Tensor:
        """Losses without noise of the problem in float64."""

        def compute() -> torch.Tensor:
            assert self.precise is not None
            with torch.no_grad():
                return self.precise.evaluate().double()

        return self.once("precise clean", compute)

    @property
    def precise_gradient(self) -> dict[str, torch.Tensor]:
        """Backprop's gradient of the problem in float64, by parameter."""

        def compute() -> dict[str, torch.Tensor]:
            assert self.precise is not None
            values = self.precise.parameters
            leaves = {p: values[p].clone().requires_grad_() for x in self.layers for p in x.parameters}
            found = self.precise.gradient(leaves, list(leaves.values()))
            zipped = zip(leaves.items(), found, strict=True)
            return {name: torch.zeros_like(v) if g is None else g for (name, v), g in zipped}

        return self.once("precise gradient", compute)

    @property
    def walked(self) -> Walk:
        """A forward that was watched, and backprop to every layer's output."""
        return self.once("walk", lambda: walk(self.problem, self.every))

    @property
    def may_walk(self) -> bool:
        """Whether memory has room for what :attr:`walked` keeps: inputs, outputs and cotangents of every layer."""
        return self.memory is None or self.memory >= 4 * bytes_of_forward(self.problem)

    def units_of(self, layer: Layer, where: str) -> list[Unit]:
        """The draws that put noise on the activations or weights of a layer."""
        return [(d, unit) for d, unit in self.units if d.where == where and layer in unit]

    def shaken(self, unit: Unit, copy: int = 0, precise: bool = False) -> Shaken:
        """Losses under one copy of a draw's own noise."""
        draw, layers = unit
        problem = self.precise if precise else self.problem
        assert problem is not None
        key = ("shaken", str(draw), tuple(x.name for x in layers), copy, precise)
        return self.once(key, lambda: shake(problem, draw, layers, copy))

    def moves(self, shaken: Shaken) -> bool:
        """Whether a loss is another under noise: in any bit, where two clean forwards agree in every bit."""
        if self.once("bits", self._same_bits):
            return bool((shaken.losses.double() != self.clean).any())
        return bool(moved(shaken.losses, self.clean.to(shaken.losses.dtype)).any())

    def _same_bits(self) -> bool:
        with torch.no_grad():
            return torch.equal(self.problem.evaluate().double(), self.clean)

    def steepness(self, layer: Layer) -> float:
        """Length of backprop's gradient of a layer."""
        return sum(float((self.gradient[p].double() ** 2).sum()) for p in layer.parameters) ** 0.5

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """``compute()``, remembered."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]
