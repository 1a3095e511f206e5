"""A look at a problem before it is used: is its loss finite, repeatable, and whose is it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import map_tensors
from gradprobe.core.rows import moved, row_masks

Losses = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Examined:
    """What a look at a problem found.

    Attributes:
        batch_size: B; 1 for a loss that is one scalar.
        loss_per: ``"sample"`` or ``"copy"``.
        weights: ``w_b``, float64; None for a scalar.
        separable: Whether each sample has the same loss when it runs alone.
    """

    batch_size: int
    loss_per: str
    weights: torch.Tensor | None
    separable: bool = False


def check_loss(losses: Any) -> torch.Tensor:
    """The losses, if they are losses.

    Raises:
        UsageError: No tensor, more than one axis, empty, or not finite.
    """
    if not isinstance(losses, torch.Tensor):
        raise UsageError(f"the loss returns a {type(losses).__name__}; it must return a tensor.")
    if losses.ndim > 1 or not losses.numel():
        raise UsageError(
            f"the loss returns shape {list(losses.shape)}; it must return losses [B] or a scalar."
        )
    if not bool(losses.isfinite().all()):
        raise UsageError(
            "the loss without noise is not finite; check the checkpoint, the scaling of the inputs and the targets."
        )
    return losses


def examine(
    evaluate: Losses,
    data: tuple[Any, Any],
    losses: torch.Tensor,
    wish: str | None,
    weights: torch.Tensor | None,
) -> Examined:
    """Find out whose the losses are.

    Args:
        evaluate: Losses of (inputs, target).
        data: Inputs and target.
        losses: Their losses.
        wish: What the user says, or None.
        weights: The user's weights, or None.

    Raises:
        UsageError: The user's wish or weights do not fit.
    """
    if losses.ndim == 0:
        if wish == "sample":
            raise UsageError("the loss returns a scalar; for loss_per='sample' it must return losses [B].")
        if weights is not None:
            raise UsageError("weights need a loss that returns losses [B]; this one returns a scalar.")
        return Examined(1, "copy", None)
    weights = _weights(weights, losses)
    own = _independent(evaluate, data, losses)
    if wish == "sample" and not own:
        raise UsageError("the losses are not the samples' own: changing a sample moves another's loss.")
    loss_per = wish or ("sample" if own else "copy")
    alone = loss_per == "sample" and _separable(evaluate, data, losses)
    return Examined(len(losses), loss_per, weights, alone)


def check_lengths(inputs: Any, target: Any) -> None:
    """Refuse a batch whose inputs and targets are not as many.

    Raises:
        UsageError: They are not, or there are none.
    """
    if isinstance(inputs, torch.Tensor) and isinstance(target, torch.Tensor):
        have, want = (str(t.shape[0]) if t.ndim else "no axis of" for t in (inputs, target))
        if have != want:
            raise UsageError(f"the batch has {have} inputs but {want} targets; they must be as many.")
        if have == "0":
            raise UsageError("the batch is empty.")


def same_state(module: nn.Module, before: dict[str, torch.Tensor]) -> None:
    """Give buffers back their values and refuse, if a forward of the twin reached the user's module.

    Raises:
        UsageError: It did.
    """
    changed = [name for name, b in module.named_buffers() if not torch.equal(b, before[name])]
    if changed:
        for name, b in module.named_buffers():
            b.copy_(before[name])
        raise UsageError(
            f"the forward of a copy of the model changes {changed[0]!r} of the model itself: it holds on to the "
            "original, perhaps in a lambda; make that a method."
        )


def rows_of(value: Any, size: int, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply a function to the tensors that have a row for each sample; leave the others."""
    return map_tensors(lambda t: function(t) if t.ndim and len(t) == size else t, value)


def _weights(given: Any, losses: torch.Tensor) -> torch.Tensor:
    if given is None:
        return torch.full_like(losses, 1 / len(losses), dtype=torch.float64)
    weights = torch.as_tensor(given, dtype=torch.float64, device=losses.device).detach()
    if weights.shape != losses.shape:
        raise UsageError(f"weights have shape {list(weights.shape)}, the losses {list(losses.shape)}.")
    if not bool(weights.isfinite().all()):
        raise UsageError("weights must be finite.")
    return weights


def _independent(evaluate: Losses, data: tuple[Any, Any], clean: torch.Tensor) -> bool:
    """Whether changing some samples leaves the others' losses alone; every ordered pair of samples is tried."""
    size = len(clean)
    for chosen in row_masks(size):
        there = chosen.to(clean.device)

        def change(t: torch.Tensor, chosen: torch.Tensor = chosen) -> torch.Tensor:
            new = t.roll(1, 0)
            if t.is_floating_point():
                new = new + t.std(correction=0) * 0.5 + 0.1
            return torch.where(chosen.to(t.device).view(-1, *[1] * (t.ndim - 1)), new, t)

        try:
            losses = evaluate(rows_of(data[0], size, change), data[1])
        except Exception:
            return False
        if moved(losses, clean)[~there].any():
            return False
    return True


def _separable(evaluate: Losses, data: tuple[Any, Any], clean: torch.Tensor) -> bool:
    """Whether the first, middle and last sample have the same loss when they run alone."""
    size = len(clean)
    for b in sorted({0, size // 2, size - 1}):
        try:
            alone = evaluate(*rows_of(data, size, lambda t, b=b: t[b : b + 1]))  # type: ignore[misc]  # mypy knows no such defaults
        except Exception:
            return False
        if alone.shape != (1,) or not torch.allclose(alone[0], clean[b], rtol=1e-4, atol=1e-5):
            return False
    return True
