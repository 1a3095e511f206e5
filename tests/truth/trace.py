"""What must be the same after an estimator has run: the model, the problem's twin and everything global."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from gradprobe.core.hooks import tensors
from gradprobe.problems.problem import Problem


def snapshot(problem: Problem) -> dict:
    """A picture of a problem and of global state; equal pictures mean that nothing was left behind."""
    return global_state() | {
        "module": module_state(problem.module),
        "twin": _module(problem.twin, contents=False),
        "batch": [_bytes(t) for t in tensors((problem.inputs, problem.target))],
        "overrides": dict(problem.overrides),
        "cache": problem._cache is None,
    }


def module_state(model: nn.Module) -> dict:
    """Values, flags, gradients, hooks and attributes of the user's own module."""
    return _module(model, contents=True)


def global_state() -> dict:
    """Random states and switches of torch, NumPy and Python."""
    return {
        "torch rng": _bytes(torch.get_rng_state()),
        "numpy rng": repr(np.random.get_state()),  # noqa: NPY002 - the global state is what is looked at
        "python rng": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }


def _module(model: nn.Module, contents: bool) -> dict:
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        hooks = {k: len(v) for k, v in vars(module).items() if k.endswith("hooks") and hasattr(v, "__len__")}
        found[path] = {
            "attributes": sorted(vars(module)),
            "hooks": hooks,
            "training": module.training,
            "parameters": {n: _tensor(p, contents) for n, p in module._parameters.items()},
            "buffers": {n: _tensor(b, contents) for n, b in module._buffers.items()},
            "children": {n: id(m) for n, m in module._modules.items()},
        }
    return found


def _tensor(t: torch.Tensor | None, contents: bool):
    if t is None:
        return None
    grad = None if t.grad is None else (id(t.grad), _bytes(t.grad))
    return id(t), t.requires_grad, grad, _bytes(t) if contents else b""


def _bytes(t: torch.Tensor) -> bytes:
    return t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class Boom(Exception):
    """Raised on purpose."""


class Raising:
    """A loss that raises from one call on: a single failure could be that of a trial, which is no reason to stop."""

    def __init__(self) -> None:
        self.left: int | None = None

    def arm(self, at: int) -> None:
        self.left = at

    def disarm(self) -> None:
        self.left = None

    def wrap(self, loss):
        def function(output, target):
            if self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    raise Boom
            return loss(output, target)

        return function
