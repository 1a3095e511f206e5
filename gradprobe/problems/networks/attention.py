"""One transformer block that reads an image row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.errors import UsageError, whole
from gradprobe.problems.networks import register
from gradprobe.problems.networks._shapes import image_shape


class RowTransformer(nn.Module):
    """A token for each row of the image, one pre-norm transformer block, the mean over tokens, a linear layer.

    ``embed`` (a row's pixels, all channels) + ``position`` (learned) -> ``norm1`` -> self-attention of ``query``,
    ``key``, ``value``, ``out``, added to its input -> ``norm2`` -> ``up``, ReLU, ``down``, added to its input ->
    mean over rows -> ``head``. Attention is written out, so that each of its matrices is a layer of its own with
    its own noise; ``nn.MultiheadAttention`` would be one.

    Args:
        input_shape: Channels, height (the number of tokens) and width.
        classes: Number of outputs.
        features: Length of a token.
        heads: Attention heads; they divide the features.
        hidden: Width of the block's perceptron; twice the features by default.

    Raises:
        UsageError: An option out of range, or inputs that are no images.
    """

    def __init__(
        self, input_shape: Sequence[int], classes: int, features: int, heads: int, hidden: int | None
    ) -> None:
        super().__init__()
        channels, rows, pixels = image_shape("attention", input_shape)
        wide = whole("features", features)
        if wide % whole("heads", heads):
            raise UsageError(f"heads must divide the features; {heads} does not divide {features}.")
        inside = 2 * wide if hidden is None else whole("hidden", hidden)
        self.heads = heads
        self.embed = nn.Linear(channels * pixels, wide)
        self.position = nn.Embedding(rows, wide)
        self.norm1, self.norm2 = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.query, self.key = nn.Linear(wide, wide), nn.Linear(wide, wide)
        self.value, self.out = nn.Linear(wide, wide), nn.Linear(wide, wide)
        self.up, self.down = nn.Linear(wide, inside), nn.Linear(inside, wide)
        self.head = nn.Linear(wide, whole("classes", classes))

    def extra_repr(self) -> str:
        """What the submodules do not say."""
        return f"heads={self.heads}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, classes]`` of images ``[B, C, H, W]``."""
        rows = x.transpose(1, 2).flatten(2)
        # a place for each sample: noise on places is then the sample's own too
        places = torch.arange(rows.shape[1], device=x.device).expand(len(rows), -1)
        x = self.embed(rows) + self.position(places)
        x = x + self._attend(self.norm1(x))
        x = x + self.down(F.relu(self.up(self.norm2(x))))
        return self.head(x.mean(1))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """Self-attention ``[B, T, features]``."""

        def split(t: torch.Tensor) -> torch.Tensor:
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.mT / query.shape[-1] ** 0.5
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


@register(
    "attention", summary="one transformer block on the rows of an image, every matrix a layer of its own"
)
def attention(
    input_shape: Sequence[int],
    classes: int = 10,
    features: int = 32,
    heads: int = 4,
    hidden: int | None = None,
) -> RowTransformer:
    """Build a :class:`RowTransformer`."""
    return RowTransformer(input_shape, classes, features, heads, hidden)
