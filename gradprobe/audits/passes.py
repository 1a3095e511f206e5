"""How many forward passes of the batch a call runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._C import _functorch

from gradprobe.core.hooks import tensors
from gradprobe.core.rows import Rows


@contextmanager
def counted(module: nn.Module, rows: Rows) -> Iterator[list[float]]:
    """Count the forwards of a module and of its copies.

    A call with k times the samples counts k; under ``vmap`` over k copies likewise. A forward of submodules one by
    one is not seen.

    Args:
        module: The module.
        rows: Where the samples lie in its inputs.

    Yields:
        One number for each call so far.
    """
    found: list[float] = []

    def hook(called: nn.Module, args: Any, kwargs: Any) -> None:
        given = tensors((args, kwargs))
        first = next((t for t in given if t.ndim > rows.axis), None)
        share = 1.0 if first is None else first.shape[rows.axis] / rows.size
        found.append(share * max(map(_copies, [*given, *called.parameters()]), default=1))

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def _copies(t: torch.Tensor) -> int:
    """How many tensors one stands for under ``vmap``."""
    number = 1
    while _functorch.is_functorch_wrapped_tensor(t):
        inner = _functorch.get_unwrapped(t)
        if _functorch.is_batchedtensor(t):
            number *= inner.shape[_functorch.maybe_get_bdim(t)]
        t = inner
    return number
