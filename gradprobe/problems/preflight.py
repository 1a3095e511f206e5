"""A look at a problem before it is used: is its loss finite, repeatable, and whose is it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.rows import Rows, along, moved, row_masks

Losses = Callable[[Any, Any], torch.Tensor]


@dataclass(frozen=True)
class Examined:
    """What a look at a problem found.

    Attributes:
        rows: How many samples, and where they lie; one for a loss that is one scalar.
        loss_per: ``"sample"`` or ``"copy"``.
        weights: ``w_b``, float64; None for a scalar.
        separable: Whether each sample has the same loss when it runs alone.
    """

    rows: Rows
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
    axis: int | None = None,
) -> Examined:
    """Find out whose the losses are.

    Args:
        evaluate: Losses of (inputs, target).
        data: Inputs and target.
        losses: Their losses.
        wish: What the user says, or None.
        weights: The user's weights, or None.
        axis: The axis of the samples in the inputs; by default the first along which they are independent, axes
            along which more of the inputs have a row for each sample first.

    Raises:
        UsageError: The user's wish, weights or axis do not fit.
    """
    if losses.ndim == 0:
        if wish == "sample":
            raise UsageError("the loss returns a scalar; for loss_per='sample' it must return losses [B].")
        if weights is not None:
            raise UsageError("weights need a loss that returns losses [B]; this one returns a scalar.")
        return Examined(Rows(1), "copy", None)
    weights = _weights(weights, losses)
    candidates = _axes(data[0], len(losses), axis)
    own = next((rows for rows in candidates if _independent(evaluate, data, losses, rows)), None)
    if wish == "sample" and own is None:
        raise UsageError("the losses are not the samples' own: changing a sample moves another's loss.")
    loss_per = wish or ("copy" if own is None else "sample")
    rows = own or candidates[0]
    alone = loss_per == "sample" and _separable(evaluate, data, losses, rows)
    return Examined(rows, loss_per, weights, alone)


def _axes(inputs: Any, size: int, wish: int | None) -> list[Rows]:
    """Where samples may lie: the axes of the inputs that are as long as there are losses.

    An axis that leaves inputs without samples comes last: moving a mask alone proves nothing about them.

    Raises:
        UsageError: The axis that the user gave is not.
    """
    found = tensors(inputs)
    shapes = [tuple(t.shape) for t in found]
    fits = sorted({axis for shape in shapes for axis, length in enumerate(shape) if length == size})
    fits.sort(key=lambda axis: sum(Rows(size, axis).axis_of(t) is None for t in found))
    if wish is None:
        return [Rows(size, axis) for axis in fits] or [Rows(size)]
    if wish not in fits:
        raise UsageError(
            f"batch_axis={wish!r} does not fit: there are {size} losses, and the inputs have shapes "
            f"{', '.join(str(list(shape)) for shape in shapes)}; leave batch_axis out, or have one loss a sample."
        )
    return [Rows(size, wish)]


def check_lengths(inputs: Any, target: Any) -> None:
    """Refuse a batch whose inputs and targets are not as many, along no axis.

    Raises:
        UsageError: They are not, or there are none.
    """
    if isinstance(inputs, torch.Tensor) and isinstance(target, torch.Tensor):
        if not (inputs.numel() and target.numel()):
            raise UsageError("the batch is empty.")
        if not set(target.shape[:2]) & set(inputs.shape[:3]):
            have, want = (str(t.shape[0]) if t.ndim else "no axis of" for t in (inputs, target))
            raise UsageError(f"the batch has {have} inputs but {want} targets; they must be as many.")


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


def _weights(given: Any, losses: torch.Tensor) -> torch.Tensor:
    if given is None:
        return torch.full_like(losses, 1 / len(losses), dtype=torch.float64)
    weights = torch.as_tensor(given, dtype=torch.float64, device=losses.device).detach()
    if weights.shape != losses.shape:
        raise UsageError(f"weights have shape {list(weights.shape)}, the losses {list(losses.shape)}.")
    if not bool(weights.isfinite().all()):
        raise UsageError("weights must be finite.")
    return weights


def still_independent(
    evaluate: Losses, data: tuple[Any, Any], clean: torch.Tensor, rows: Rows, turn: int
) -> bool:
    """Whether changing some samples leaves the others' losses alone: one forward, other samples at each turn."""
    masks = row_masks(rows.size)
    return not masks or _independent(evaluate, data, clean, rows, [masks[turn % len(masks)]])


def _independent(
    evaluate: Losses,
    data: tuple[Any, Any],
    clean: torch.Tensor,
    rows: Rows,
    masks: Iterable[torch.Tensor] | None = None,
) -> bool:
    """Whether changing some samples leaves the others' losses alone; by default every ordered pair is tried."""
    for chosen in row_masks(rows.size) if masks is None else masks:
        there = chosen.to(clean.device)

        def change(t: torch.Tensor, axis: int, chosen: torch.Tensor = chosen) -> torch.Tensor:
            new = t.roll(1, axis)
            if t.is_floating_point():
                new = new + t.std(correction=0) * 0.5 + 0.1
            elif t.dtype != torch.bool:  # rows that are alike would be replaced by themselves
                new = torch.where(new == t, t.max() + t.min() - t, new)
            return torch.where(along(chosen.to(t.device), axis, t.ndim), new, t)

        try:
            losses = evaluate(rows.map(change, data[0]), data[1])
        except Exception:
            return False
        if moved(losses, clean)[~there].any():
            return False
    return True


def _separable(evaluate: Losses, data: tuple[Any, Any], clean: torch.Tensor, rows: Rows) -> bool:
    """Whether the first, middle and last sample have the same loss when they run alone."""
    for b in sorted({0, rows.size // 2, rows.size - 1}):
        try:
            alone = evaluate(*rows.alone(data, b))
        except Exception:
            return False
        if alone.shape != (1,) or not torch.allclose(alone[0], clean[b], rtol=1e-4, atol=1e-5):
            return False
    return True
