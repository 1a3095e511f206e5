"""A recurrent classifier of texts: embedding, LSTM (or GRU, or plain recurrence), one linear layer."""

from __future__ import annotations

import torch
from torch import nn

from gradprobe.core.errors import one_of, whole
from gradprobe.problems.networks import register

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class RecurrentClassifier(nn.Module):
    """``embedding`` -> ``recurrence`` -> ``head`` on the hidden state after the last token.

    Args:
        vocabulary: Number of different tokens; tokens are 0 to vocabulary - 1.
        classes: Number of outputs.
        features: Length of a token's embedding.
        hidden: Length of the hidden state.
        layers: Recurrent layers on top of each other.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"`` (tanh).
        padding: Token that fills sentences up at the end: the hidden state before it is used. None: there is
            none.

    Raises:
        UsageError: An option out of range.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        features: int,
        hidden: int,
        layers: int,
        cell: str,
        padding: int | None,
    ) -> None:
        super().__init__()
        one_of("cell", cell, tuple(CELLS))
        if padding is not None:
            whole("padding", padding, 0)
        self.padding = padding
        self.embedding = nn.Embedding(whole("vocabulary", vocabulary), whole("features", features))
        self.recurrence = CELLS[cell](
            features, whole("hidden", hidden), whole("layers", layers), batch_first=True
        )
        self.head = nn.Linear(hidden, whole("classes", classes))

    def extra_repr(self) -> str:
        """What the submodules do not say."""
        return f"padding={self.padding}"

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, classes]`` of tokens ``[B, T]``."""
        states = self.recurrence(self.embedding(tokens))[0]
        if self.padding is None:
            return self.head(states[:, -1])
        last = ((tokens != self.padding).sum(1) - 1).clamp_min(0)
        return self.head(states[torch.arange(len(tokens), device=tokens.device), last])


@register("lstm", summary="LSTM text classifier (cell: lstm, gru or rnn); for data with a vocabulary")
def lstm(
    vocabulary: int,
    classes: int,
    features: int = 16,
    hidden: int = 32,
    layers: int = 1,
    cell: str = "lstm",
    padding: int | None = None,
) -> RecurrentClassifier:
    """Build a :class:`RecurrentClassifier`."""
    return RecurrentClassifier(vocabulary, classes, features, hidden, layers, cell, padding)
