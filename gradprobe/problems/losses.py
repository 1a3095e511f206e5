"""Losses by name. Each gives one loss for each sample: the mean over all axes but the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from gradprobe.core.errors import UsageError, described, unknown

Loss = Callable[[Any, Any], torch.Tensor]

LANES = 16
"""Numbers of 32 bits in a vector of a processor."""

IGNORED = -100
"""Target of what does not count, as in torch's and transformers' cross entropies."""


def per_sample(function: Callable[..., torch.Tensor]) -> Loss:
    """Turn a loss of ``torch.nn.functional`` into one that gives losses ``[B]``.

    Args:
        function: A function with ``reduction=``.

    Returns:
        ``f(output, target) -> [B]``: the unreduced loss, averaged over every axis but the first. Weighted
        means (class weights, ``ignore_index``) are not reproduced; pass a callable for those.
    """

    def loss(output: Any, target: Any) -> torch.Tensor:
        if len(output) != len(target):
            raise UsageError(
                f"the model gives {len(output)} outputs for {len(target)} targets; batch and target must have "
                "the same length along axis 0 (samples come first in what a named loss is given)."
            )
        if function not in (F.cross_entropy, F.nll_loss) and output.shape != target.shape:
            raise UsageError(
                f"the model gives shape {list(output.shape)} for targets of shape {list(target.shape)}; they must "
                "be equal: squeeze the output, or give targets an axis."
            )
        if function is F.cross_entropy and _vectorised(output, target):
            return few_classes(output, target)
        losses = function(output, target, reduction="none")
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

    return loss


def few_classes(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy ``[B]`` of scores ``[B, C]`` and classes ``[B]``, as precise as torch's.

    On a CPU torch's own takes four times as long where rows are shorter than a vector of the processor: its time goes
    into rows, not into numbers. With the copies of small networks that is a third of all.
    """
    below = output - output.amax(1, keepdim=True)
    own = below.gather(1, target[:, None]).squeeze(1)
    return below.exp_().sum(1).log_().sub_(own)


def _vectorised(output: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether :func:`few_classes` serves: copies under vmap on a CPU, few classes, no target to be ignored."""
    batched = torch._C._functorch.is_batchedtensor
    if not batched(output) or batched(target) or output.device.type != "cpu":
        return False
    few = output.ndim == 2 and output.shape[1] < LANES
    return few and target.ndim == 1 and target.dtype == torch.int64 and bool((target >= 0).all())


LOSSES: dict[str, Loss] = {
    "cross_entropy": per_sample(F.cross_entropy),
    "mse": per_sample(F.mse_loss),
    "l1": per_sample(F.l1_loss),
    "nll": per_sample(F.nll_loss),
    "bce_with_logits": per_sample(F.binary_cross_entropy_with_logits),
}


def picked(output: Any, wish: str | int | Callable[[Any], Any] | None, named: bool) -> Any:
    """What the loss is given of a model's output.

    Args:
        output: What the model returns: a tensor, tuple, mapping or dataclass.
        wish: A key, field or position, or a function of the output; None for the default.
        named: Whether the loss is one of gradprobe's, which need a tensor: by default ``logits``, or the only
            floating tensor there is. Other losses are given the whole output by default.

    Raises:
        UsageError: There is no such output, or more than one that it could be.
    """
    if callable(wish):
        return wish(output)
    known = _parts(output)
    if isinstance(wish, int) and -len(known) <= wish < len(known):
        return list(known.values())[wish]
    if wish is not None:
        if wish not in known:
            raise unknown("output", wish, known or [f"none, it is {described(output)}"])
        return known[str(wish)]
    if not named or isinstance(output, torch.Tensor):
        return output
    floating = [name for name, v in known.items() if isinstance(v, torch.Tensor) and v.is_floating_point()]
    choice = "logits" if "logits" in floating else floating[0] if len(floating) == 1 else None
    if choice is None:
        raise UsageError(
            f"the model returns {described(output)} with the outputs {', '.join(known) or 'none'}; say with output= "
            "which of them the loss is given, or pass loss= a function f(output, target)."
        )
    return known[choice]


def _parts(output: Any) -> dict[str, Any]:
    """The outputs of a model by name; by position, as text, where they have none."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if dataclasses.is_dataclass(output):
        return {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    if isinstance(output, (tuple, list)):
        names = getattr(output, "_fields", range(len(output)))
        return {str(name): value for name, value in zip(names, output, strict=True)}
    return {}


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
