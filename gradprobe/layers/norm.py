"""Normalisation layers with affine parameters: output = normalised input x weight + bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.layers import register
from gradprobe.layers.generic import Generic, Tensors


@register(
    "norm",
    summary="LayerNorm, RMSNorm, GroupNorm, BatchNorm and InstanceNorm with affine parameters",
    classes=(
        "torch.nn.LayerNorm",
        "torch.nn.RMSNorm",
        "torch.nn.GroupNorm",
        "torch.nn.BatchNorm1d",
        "torch.nn.BatchNorm2d",
        "torch.nn.BatchNorm3d",
        "torch.nn.InstanceNorm1d",
        "torch.nn.InstanceNorm2d",
        "torch.nn.InstanceNorm3d",
    ),
)
class NormRule(Generic):
    """``weight`` gets cotangent x normalised input, ``bias`` the cotangent; signs of the normalised input."""

    encodes = True

    def pull_back(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
        encode: bool = False,
    ) -> dict[str, torch.Tensor]:
        """As :meth:`Generic.pull_back`; with ``encode`` the normalised input is replaced by its sign."""
        neutral = {
            n: torch.full_like(v, float(n == "weight")) if n in own else v.clone() for n, v in values.items()
        }
        with torch.no_grad():
            normalised = functional_call(module, neutral, args, dict(kwargs), tie_weights=False)
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            axes = list(range(cotangent.ndim - values["weight"].ndim))
        else:
            axes = [axis for axis in range(cotangent.ndim) if axis != 1]
        factor = torch.sign(normalised) if encode else normalised
        found = {"weight": _summed(cotangent * factor, axes)}
        return found | ({"bias": _summed(cotangent, axes)} if "bias" in own else {})


def _summed(t: torch.Tensor, axes: list[int]) -> torch.Tensor:
    return t.sum(axes) if axes else t
