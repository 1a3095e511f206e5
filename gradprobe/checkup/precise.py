"""A problem in float64: what it would be without the rounding of its own precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradprobe.core.hooks import Call, first_tensor, intercept, map_tensors
from gradprobe.core.layer import Layer, paths
from gradprobe.engine.memory import SHARE, bytes_of_forward, free_memory, is_out_of_memory
from gradprobe.problems.problem import Problem


def in_float64(problem: Problem, layers: Sequence[Layer], memory: int | None = None) -> Problem | None:
    """The same problem with parameters, buffers and batch in float64; nothing of the original is copied twice.

    Args:
        problem: The problem.
        layers: Its layers, whose outputs tell whether the forward itself runs in float64.
        memory: Bytes that it may take; by default half of what is free.

    Returns:
        The problem itself if it is in float64; None if it does not fit into memory, or if its forward fails in
        float64 or comes back to a lower precision on the way.
    """
    state = problem.parameters | {n: b for n, b in problem.twin.named_buffers() if b.is_floating_point()}
    if all(t.dtype == torch.float64 for t in state.values() if t.is_floating_point()):
        return problem
    # values, a gradient and a shifted set of them, and a forward and backward of twice the size
    need = 3 * 8 * sum(t.numel() for t in state.values()) + 2 * bytes_of_forward(problem)
    if need > (SHARE * free_memory(problem.device) if memory is None else memory):
        return None
    other = problem.at({})
    other.overrides = {name: _wide(t) for name, t in state.items()}
    other.inputs, other.target = map_tensors(_wide, problem.inputs), map_tensors(_wide, problem.target)
    try:
        with torch.no_grad():
            faithful = _runs_wide(other, layers)
    except Exception as error:  # whatever it is: the problem is looked at in its own precision then
        if not is_out_of_memory(error):
            return None
        faithful = False
    return other if faithful else None


def _wide(t: torch.Tensor) -> torch.Tensor:
    return t.double() if t.is_floating_point() else t


def _runs_wide(problem: Problem, layers: Sequence[Layer]) -> bool:
    wide = True

    def look(call: Call, output: Any) -> Any:
        nonlocal wide
        tensor = first_tensor(output)
        wide = wide and (tensor is None or tensor.dtype == torch.float64)
        return output

    with intercept(problem.twin, paths([x for x in layers if x.calls]), look) as calls:
        calls.restart()
        losses = problem.evaluate()
    return wide and losses.dtype == torch.float64 and bool(losses.isfinite().all())
