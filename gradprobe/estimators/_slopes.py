"""Backprop of a problem's objective, or of something else in its place, as directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gradprobe.core.layer import Layer
from gradprobe.estimators.pulling import Directions
from gradprobe.problems.problem import Problem
from gradprobe.problems.seen import Seen


def slopes(
    problem: Problem,
    layers: Sequence[Layer],
    objective: Callable[[Seen], torch.Tensor] | None = None,
) -> Directions:
    """The gradient for the layers' parameters; 0 where there is no path to them.

    Args:
        problem: The problem.
        layers: The layers.
        objective: What is differentiated, made of what the forward gave; the objective of the problem by default.
            If given, the graph holds all parameters of the model, not only the layers'.
    """
    values = problem.parameters
    found = dict(zip(*_found(problem, layers, objective), strict=True))
    return {name: torch.zeros_like(values[name]) if g is None else g for name, g in found.items()}


def reached(problem: Problem, layers: Sequence[Layer], objective: Callable[[Seen], torch.Tensor]) -> set[str]:
    """Names of the layers with a parameter that what is differentiated depends on."""
    found = {name for name, g in zip(*_found(problem, layers, objective), strict=True) if g is not None}
    return {layer.name for layer in layers if found & set(layer.parameters)}


def _found(
    problem: Problem, layers: Sequence[Layer], objective: Callable[[Seen], torch.Tensor] | None
) -> tuple[list[str], list[torch.Tensor | None]]:
    values = problem.parameters
    names = [name for layer in layers for name in layer.parameters]
    if not names:
        return [], []
    held = names if objective is None else list(values)
    leaves = {name: values[name].clone() for name in held}
    for leaf in leaves.values():
        leaf.requires_grad_(leaf.is_floating_point())
    return names, problem.gradient(leaves, [leaves[name] for name in names], objective=objective)
