"""What a look must leave as it was, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gradprobe.problems.problem import Problem

Marks = Mapping[str, object]


def marks_of(problem: Problem) -> Marks:
    """Marks of the user's module: values of weights and buffers, gradients and flags.

    A tensor is known by the XOR of its bits and by its sum: one number changed always shows.
    """
    found: dict[str, object] = {}
    module = problem.module
    for kind, tensors in (("weight", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, t in tensors:
            found[f"{kind} {name!r}"] = _mark(t.detach())
    for name, p in module.named_parameters():
        found[f"flags of weight {name!r}"] = (p.requires_grad, p.grad is None)
    for name, m in module.named_modules():
        found[f"training flag of module {name!r}"] = m.training
    return found


def _mark(t: torch.Tensor) -> tuple[int, str]:
    if not t.numel() or t.is_complex() or t.layout != torch.strided:
        return 0, str(t)
    try:
        bits = int(torch.hash_tensor(t).item())
    except (NotImplementedError, RuntimeError):  # not on this device, or not for this type
        bits = 0
    return bits, str(t.double().sum().item())
