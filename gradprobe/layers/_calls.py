"""Calls of a module that are pulled back together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Apart:
    """A call whose samples are pulled back each on its own.

    Attributes:
        module: The module.
        own: Local names of the layer's parameters.
        values: Parameters and buffers by local name; left as they are, like the arguments.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        cotangents: ``[n, *output]``.
        axes: Axis of the B samples in each tensor among the arguments; None where it has none.
        axis: Axis of the samples in the output.
        encode: Replace J by sign(J).
    """

    module: nn.Module
    own: Sequence[str]
    values: Tensors
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    cotangents: torch.Tensor
    axes: Sequence[int | None]
    axis: int
    encode: bool = False


@dataclass(frozen=True)
class Copies:
    """Calls of one module that differ in the numbers of their tensors alone.

    Attributes:
        module: The module.
        own: Local names of the layer's parameters.
        values: Parameters and buffers by local name; left as they are, like the arguments.
        inputs: Positional and keyword arguments of the n calls.
        cotangents: ``[n, *output]``.
        encode: Replace J by sign(J).
    """

    module: nn.Module
    own: Sequence[str]
    values: Tensors
    inputs: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]
    cotangents: torch.Tensor
    encode: bool = False
