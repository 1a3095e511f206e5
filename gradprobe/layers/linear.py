"""Linear layers: d output[b, o] / d weight[o, i] = input[b, i]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradprobe.layers import register
from gradprobe.layers._calls import Apart, Tensors
from gradprobe.layers.generic import SignOfInput


@register(
    "linear",
    summary="Linear, also torch_geometric's, and the Conv1D of transformers",
    classes=(
        "torch.nn.Linear",
        "torch_geometric.nn.dense.linear.Linear",
        "transformers.pytorch_utils.Conv1D",
    ),
)
class LinearRule(SignOfInput):
    """``weight`` gets cotangent x input, ``bias`` the cotangent; signs are those of the input."""

    matrices = ("weight",)
    neurons = -1

    def error_back(
        self,
        module: nn.Module,
        matrices: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
    ) -> list[torch.Tensor]:
        """As :meth:`Generic.error_back`, by a product."""
        if not isinstance(module, nn.Linear) or "forward" in vars(module):
            return super().error_back(module, matrices, args, kwargs, cotangent)
        return [cotangent @ matrices["weight"]]

    def pull_back_apart(self, call: Apart) -> dict[str, torch.Tensor]:
        """As :meth:`Generic.pull_back_apart`; where the call is plain, one product for each sample."""
        module, args = call.module, call.args
        alone = len(args) == 1 and not call.kwargs
        plain = isinstance(module, nn.Linear) and alone and not call.axis and call.axes[0] == 0
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if not plain or args[0].ndim == 1 or hooked:
            return super().pull_back_apart(call)
        x = torch.sign(args[0]) if call.encode else args[0]
        x = x.reshape(len(x), -1, x.shape[-1])  # [B, places, in]
        each = call.cotangents.to(x.dtype).transpose(0, 1)
        each = each.reshape(*each.shape[:2], -1, each.shape[-1])  # [B, n, places, out]
        found = {"bias": each.sum(2)}
        if "weight" in call.own:
            found["weight"] = each.transpose(2, 3) @ x[:, None]
        return {name: found[name] for name in call.own}
