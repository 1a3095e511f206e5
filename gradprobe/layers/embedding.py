"""Embeddings: the Jacobian is one-hot, its own sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gradprobe.layers import register
from gradprobe.layers.generic import Generic


@register("embedding", summary="Embedding", classes=("torch.nn.Embedding",))
class EmbeddingRule(Generic):
    """A row of ``weight`` gets the sum of the cotangents of the places where it was looked up."""

    encodes = True
    neurons = -1
    keeps = True

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Unchanged: the entries are 0 and 1."""
        return args, kwargs
