"""What a source of models gives: a module, and what it wants of the data and of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gradprobe.problems.data import Data
from gradprobe.problems.losses import Loss

RANDOM = "random (seed 0)"


@dataclass(frozen=True)
class Made:
    """A model and what belongs to it.

    Attributes:
        module: The model.
        weights: Where its weights come from, for "the weights are ...".
        adapt: Turns the data into what the model reads (tokens, pixels of its size); None: they stay as they are.
        loss: The model's usual loss; None: ``cross_entropy``.
        facts: JSON-able facts to keep with results, such as hashes of weight files.
        notes: Sentences that the user must see, such as that a head is new.
    """

    module: nn.Module
    weights: str = RANDOM
    adapt: Callable[[Data], Data] | None = None
    loss: str | Loss | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
