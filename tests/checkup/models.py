"""Small models, healthy and with planted faults."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def batch(*shape: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of this shape and a class for each, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randint(0, classes, shape[:1], generator=generator)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with weights that are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


class Net(nn.Module):
    """Two linear layers, ``first`` and ``last``, and a function of both and the input."""

    def __init__(self, function: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x))) if self.function is None else self.function(self, x)


def net(function: Callable[..., torch.Tensor] | None = None) -> nn.Module:
    """:class:`Net` with fixed weights."""
    return seeded(lambda: Net(function))


def cnn() -> nn.Module:
    """Convolutions, BatchNorm with statistics of its own, ReLU in place, dropout."""

    def make() -> nn.Module:
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(8, 3),
        )
        for norm in (model[1], model[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 2.0)
        return model

    return seeded(make)


def encoder() -> nn.Module:
    """Two layers of a transformer encoder and a head."""
    layer = seeded(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    head = seeded(lambda: nn.Linear(40, 3))
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(stack, nn.Flatten(), head)


def status(found, check: str, layer: str | None = None) -> str:
    """Status of a check."""
    return of(found, check, layer).status


def of(found, check: str, layer: str | None = None):
    """The finding of a check on a layer, or on the problem."""
    (one,) = (f for f in found.findings if f.check == check and f.layer == layer)
    return one


def samples_losses(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy as a function, which promises nothing of axes."""
    return F.cross_entropy(output, target, reduction="none")
