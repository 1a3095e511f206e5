"""What a forward gave, for methods that differentiate something else than the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Seen:
    """One forward of a problem, with its graph.

    Attributes:
        total: ``sum_b w_b L_b``, or the copy's loss.
        losses: What the loss gave, ``[B]`` or ``[]``.
        output: What the loss was given.
        inputs: The batch's inputs, as the user gave them; of one sample if only that ran.
        target: Its target, likewise.
    """

    total: torch.Tensor
    losses: torch.Tensor
    output: Any
    inputs: Any
    target: Any
