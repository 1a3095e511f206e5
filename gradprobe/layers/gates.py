"""Gates of a recurrent layer: d gates[b, o] / d weight_ih[o, i] = x[b, i], and h[b, j] for weight_hh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradprobe.layers import register
from gradprobe.layers.generic import Generic


@register(
    "gates",
    summary="LSTM, GRU, RNN and their cells, step by step",
    classes=("gradprobe.problems.recurrent.Gates", "gradprobe.problems.recurrent.GRUGates"),
)
class GatesRule(Generic):
    """Weights get cotangent x input and cotangent x hidden state, biases the cotangent; signs are of both inputs."""

    encodes = True
    matrices = ("weight_ih", "weight_hh")
    neurons = -1
    keeps = True

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same call with the signs of input and hidden state."""
        return tuple(torch.sign(t) for t in args), kwargs
