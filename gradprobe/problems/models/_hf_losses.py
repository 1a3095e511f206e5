"""Losses of language models, one for each sample; at the top of a file, so that workers can import them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from gradprobe.core.errors import UsageError
from gradprobe.problems.losses import IGNORED


def token_loss(output: Any, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the tokens of a sample that count.

    Args:
        output: A transformers output with ``logits [B, L, V]``, or the logits.
        target: ``[B, L]``; :data:`IGNORED` where a token does not count.

    Returns:
        ``[B]``; 0 for a sample in which no token counts.
    """
    losses = F.cross_entropy(
        _logits(output, target).transpose(1, 2), target, ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1) / (target != IGNORED).sum(1).clamp(min=1)


def next_token_loss(output: Any, target: torch.Tensor) -> torch.Tensor:
    """:func:`token_loss` of a causal language model: position i predicts token i + 1."""
    return token_loss(_logits(output, target)[:, :-1], target[:, 1:])


def _logits(output: Any, target: torch.Tensor) -> torch.Tensor:
    logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or target.ndim != 2:
        raise UsageError(
            "a loss over tokens needs logits [B, L, V] and targets [B, L]; give texts as data, or another task."
        )
    return logits
