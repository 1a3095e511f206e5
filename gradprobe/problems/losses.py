"""Losses by name. Each gives one loss for each sample: the mean over all axes but the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gradprobe.core.errors import UsageError, unknown

Loss = Callable[[Any, Any], torch.Tensor]


def per_sample(function: Callable[..., torch.Tensor]) -> Loss:
    """Turn a loss of ``torch.nn.functional`` into one that gives losses ``[B]``.

    Args:
        function: A function with ``reduction=``.

    Returns:
        ``f(output, target) -> [B]``: the unreduced loss, averaged over every axis but the first. Weighted
        means (class weights, ``ignore_index``) are not reproduced; pass a callable for those.
    """

    def loss(output: Any, target: Any) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise UsageError(
                f"the model returns a {type(output).__name__}, not a tensor; pass loss= a function "
                "f(output, target) that picks what it needs."
            )
        if len(output) != len(target):
            raise UsageError(
                f"the model gives {len(output)} outputs for {len(target)} targets; batch and target must have "
                "the same length along axis 0."
            )
        if function not in (F.cross_entropy, F.nll_loss) and output.shape != target.shape:
            raise UsageError(
                f"the model gives shape {list(output.shape)} for targets of shape {list(target.shape)}; they must "
                "be equal: squeeze the output, or give targets an axis."
            )
        losses = function(output, target, reduction="none")
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

    return loss


LOSSES: dict[str, Loss] = {
    "cross_entropy": per_sample(F.cross_entropy),
    "mse": per_sample(F.mse_loss),
    "l1": per_sample(F.l1_loss),
    "nll": per_sample(F.nll_loss),
    "bce_with_logits": per_sample(F.binary_cross_entropy_with_logits),
}


def find_loss(loss: str | Loss) -> Loss:
    """The loss of a name; a callable is returned as it is.

    Raises:
        UsageError: No loss has that name.
    """
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]
