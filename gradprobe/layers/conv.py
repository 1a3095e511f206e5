"""Convolutions: each Jacobian entry is the input entry under the kernel at that position (0 in the padding)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradprobe.layers import register
from gradprobe.layers._calls import Apart, Tensors
from gradprobe.layers.generic import SignOfInput


@register(
    "conv",
    summary="Conv1d, Conv2d, Conv3d and their transposes",
    classes=(
        "torch.nn.Conv1d",
        "torch.nn.Conv2d",
        "torch.nn.Conv3d",
        "torch.nn.ConvTranspose1d",
        "torch.nn.ConvTranspose2d",
        "torch.nn.ConvTranspose3d",
    ),
)
class ConvRule(SignOfInput):
    """Signs are taken at each position, before the sum over positions that makes the weight's gradient."""

    matrices = ("weight",)
    neurons = 1

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
        """As for any module; without its forward where the call is plain (half of the time and more)."""
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, torch.Tensor) or not _plain(module, own, values, x):
            return super().pull_back(module, own, values, args, kwargs, cotangent, encode)
        with torch.no_grad():
            found = _backward(
                module,
                cotangent.to(x.dtype),
                torch.sign(x) if encode else x,
                values["weight"],
                [cotangent.shape[1]] if "bias" in values else None,
                (False, "weight" in own, "bias" in own),
            )
        return {name: found[1] if name == "weight" else found[2] for name in own}

    def error_back(
        self,
        module: nn.Module,
        matrices: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
    ) -> list[torch.Tensor]:
        """As :meth:`Generic.error_back`; without a forward where the call is plain."""
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, torch.Tensor) or not _known(module, ("weight",), matrices, x):
            return super().error_back(module, matrices, args, kwargs, cotangent)
        return [_backward(module, cotangent, x, matrices["weight"], None, (True, False, False))[0]]

    def pull_back_apart(self, call: Apart) -> dict[str, torch.Tensor]:
        """As :meth:`Generic.pull_back_apart`; where the call is plain, products with the patches under the kernel."""
        module = call.module
        x = call.args[0] if len(call.args) == 1 and not call.kwargs else None
        known = isinstance(module, nn.Conv2d) and module.groups == 1 and call.axis == 0
        if not known or not isinstance(x, torch.Tensor) or not _plain(module, call.own, call.values, x):
            return super().pull_back_apart(call)
        x = torch.sign(x) if call.encode else x
        return _by_patches(module, call.own, call.values, x, call.cotangents)


def _by_patches(
    module: nn.Module, own: Sequence[str], values: Tensors, x: torch.Tensor, cotangents: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Gradients of each sample ``[B, n, *param]`` from its patches ``[in * kernel, positions]``."""
    with torch.no_grad():
        geometry: dict[str, Any] = {n: getattr(module, n) for n in ("dilation", "padding", "stride")}
        patches = nn.functional.unfold(x, tuple(values["weight"].shape[2:]), **geometry)
        each = cotangents.to(x.dtype).transpose(0, 1)
        found = {"bias": each.sum((3, 4))}
        if "weight" in own:
            products = each.flatten(1, 2).flatten(2) @ patches.transpose(1, 2)
            found["weight"] = products.view(*each.shape[:2], *values["weight"].shape)
    return {name: found[name] for name in own}


def _backward(
    module: Any,
    cotangent: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: list[int] | None,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slopes for input, weight and bias, as far as they are wanted."""
    return torch.ops.aten.convolution_backward(
        cotangent,
        x,
        weight,
        bias,
        module.stride,
        module.padding,
        module.dilation,
        isinstance(module, nn.modules.conv._ConvTransposeNd),
        module.output_padding,
        module.groups,
        list(wanted),
    )


def _plain(module: nn.Module, own: Sequence[str], values: Tensors, x: torch.Tensor) -> bool:
    """Whether the module does nothing but torch's convolution of its own weight and bias, without hooks."""
    return _known(module, own, values, x) and not (module._forward_hooks or module._forward_pre_hooks)


def _known(module: nn.Module, own: Sequence[str], values: Tensors, x: torch.Tensor) -> bool:
    """Whether the module's forward is nothing but torch's convolution of its own weight and bias."""
    base = next(cls for cls in type(module).__mro__ if cls.__module__ == "torch.nn.modules.conv")
    names = ("forward", "_conv_forward")
    same = all(getattr(type(module), name, None) is getattr(base, name, None) for name in names)
    known = "weight" in values and set(own) <= {"weight", "bias"} and "forward" not in vars(module)
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return same and known and zeros and x.ndim == values["weight"].ndim
