"""Plain backprop training: enough to bring a small network to where gradients are of interest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gradprobe.core.hooks import map_tensors
from gradprobe.problems.data import Data


def train(
    module: nn.Module,
    data: Data,
    epochs: int,
    *,
    rate: float = 1e-3,
    batch_size: int = 32,
    batches: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[float]:
    """Train a classifier in place with Adam on the cross entropy, in train mode.

    Args:
        module: The network.
        data: Its training data. Whole data are one batch; their weights are those of the loss.
        epochs: Passes over the data.
        rate: Learning rate.
        batch_size: Samples in a batch; each epoch has an order of its own.
        batches: Batches in an epoch at most; all by default.
        generator: Where the orders come from; torch's global one by default.

    Yields:
        After each epoch its mean loss over the batches.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for _ in range(epochs):
        module.train()
        every = torch.arange(len(data))
        rows = [every] if data.whole else torch.randperm(len(data), generator=generator).split(batch_size)
        losses = []
        for chosen in rows[:batches]:
            optimizer.zero_grad()
            loss = _loss(module, data, chosen)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        yield sum(losses) / len(losses)


def accuracy(module: nn.Module, data: Data) -> float:
    """Share of rows that are classified correctly, weighted as the data say; in eval mode, which is left on."""
    module.eval()
    with torch.no_grad():
        right = (_called(module, data.inputs).argmax(1) == data.targets).double()
    return float(right.mean() if data.weights is None else (right * data.weights).sum() / data.weights.sum())


def _loss(module: nn.Module, data: Data, chosen: torch.Tensor) -> torch.Tensor:
    if data.whole:
        weights = torch.full((len(data),), 1 / len(data)) if data.weights is None else data.weights
        losses = F.cross_entropy(_called(module, data.inputs), data.targets, reduction="none")
        return (losses * weights).sum()
    inputs = map_tensors(lambda t: t[chosen], data.inputs)
    return F.cross_entropy(_called(module, inputs), data.targets[chosen])


def _called(module: nn.Module, inputs: Any) -> torch.Tensor:
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, (tuple, list)) else module(inputs)
