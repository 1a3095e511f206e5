"""Linear layers of many copies: one product of matrices where all copies see the same rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.protocols import Runnable


@contextmanager
def features_first(problem: Runnable) -> Iterator[None]:
    """Under ``vmap`` on a CPU, linear layers of rows with weights of each copy give ``(W x^T + b)^T``.

    Torch multiplies the rows by the weights of one copy after another. The other way round, the weights of all copies
    are one tall matrix where the rows are not a copy's own, and a layer's features come before the samples in memory,
    where the next layer and a sum over few classes read whole vectors. The numbers are the same up to rounding.

    Args:
        problem: Its twin's linear layers are served so for the length of the ``with``.
    """
    layers: list[nn.Linear] = problem.once("plain linear layers", lambda: _plain(problem.twin))
    try:
        for layer in layers:
            layer.forward = functools.partial(_linear, layer)  # type: ignore[method-assign]  # of this one alone
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _plain(model: nn.Module) -> list[nn.Linear]:
    """Linear layers whose forward is torch's own."""
    return [x for x in model.modules() if type(x) is nn.Linear and "forward" not in vars(x)]


def _linear(layer: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight, layer.bias
    own = torch._C._functorch.is_batchedtensor
    if rows.ndim != 2 or rows.device.type != "cpu" or not own(weight) or not (bias is None or own(bias)):
        return F.linear(rows, weight, bias)
    found = weight @ rows.t()
    return (found if bias is None else found.add_(bias[:, None])).t()
