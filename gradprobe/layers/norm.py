"""Normalisation layers with affine parameters: output = normalised input x weight + bias."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.layers import register
from gradprobe.layers._calls import Apart, Tensors
from gradprobe.layers.generic import Generic


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
    keeps = True

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
        factor = _factor(module, own, values, args, kwargs, encode)
        return _products(module, own, values, cotangent, factor)

    def kept(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The signs of the normalised input."""
        return (_factor(_bare(module), own, values, args, kwargs, encode=True),), {}

    def pull_back_kept(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Products with these signs."""
        return _products(module, own, values, cotangent, args[0])

    def pull_back_apart(self, call: Apart) -> dict[str, torch.Tensor]:
        """As :meth:`Generic.pull_back_apart`: the same products, summed over all axes but the samples'."""
        factor = _factor(call.module, call.own, call.values, call.args, call.kwargs, call.encode)
        cotangents = call.cotangents
        others = [1 + a for a in _axes(call.module, call.values, cotangents.ndim - 1) if a != call.axis]
        found = {"weight": _summed(cotangents * factor, others)}
        found |= {"bias": _summed(cotangents, others)} if "bias" in call.own else {}
        return {name: value.transpose(0, 1) for name, value in found.items()}


def _products(
    module: nn.Module, own: Sequence[str], values: Tensors, cotangent: torch.Tensor, factor: torch.Tensor
) -> dict[str, torch.Tensor]:
    axes = _axes(module, values, cotangent.ndim)
    found = {"weight": _summed(cotangent * factor, axes)}
    return found | ({"bias": _summed(cotangent, axes)} if "bias" in own else {})


def _bare(module: nn.Module) -> nn.Module:
    """The same module without hooks, for while those of a forward are on it."""
    bare = copy.copy(module)
    hooks = [name for name in vars(module) if name.startswith("_forward") and "hooks" in name]
    vars(bare).update({name: type(vars(module)[name])() for name in hooks})
    return bare


def _factor(
    module: nn.Module,
    own: Sequence[str],
    values: Tensors,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    encode: bool,
) -> torch.Tensor:
    """The normalised input, or its sign."""
    neutral = {
        n: torch.full_like(v, float(n == "weight")) if n in own else v.clone() for n, v in values.items()
    }
    with torch.no_grad():
        normalised = functional_call(module, neutral, args, dict(kwargs), tie_weights=False)
    return torch.sign(normalised) if encode else normalised


def _axes(module: nn.Module, values: Tensors, ndim: int) -> list[int]:
    """Axes of an output of so many axes along which one weight is used again."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return list(range(ndim - values["weight"].ndim))
    return [axis for axis in range(ndim) if axis != 1]


def _summed(t: torch.Tensor, axes: list[int]) -> torch.Tensor:
    return t.sum(axes) if axes else t
