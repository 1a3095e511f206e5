"""Linear layers: d output[b, o] / d weight[o, i] = input[b, i]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradprobe.layers import register
from gradprobe.layers.generic import SignOfInput, Tensors


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

    def pull_back_apart(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangents: torch.Tensor,
        axes: Sequence[int | None],
        axis: int,
        encode: bool = False,
    ) -> dict[str, torch.Tensor]:
        """As :meth:`Generic.pull_back_apart`; where the call is plain, one product for each sample."""
        plain = isinstance(module, nn.Linear) and len(args) == 1 and not kwargs and not axis and axes[0] == 0
        hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        if not plain or args[0].ndim == 1 or hooked:
            return super().pull_back_apart(module, own, values, args, kwargs, cotangents, axes, axis, encode)
        x = torch.sign(args[0]) if encode else args[0]
        x = x.reshape(len(x), -1, x.shape[-1])  # [B, places, in]
        each = cotangents.to(x.dtype).transpose(0, 1)
        each = each.reshape(*each.shape[:2], -1, each.shape[-1])  # [B, n, places, out]
        found = {"bias": each.sum(2)}
        if "weight" in own:
            found["weight"] = each.transpose(2, 3) @ x[:, None]
        return {name: found[name] for name in own}
