"""Architectures that people train, as small as their structure allows, randomly initialised; only torch is needed.

Each entry is written as its users write it: torch's own encoder with a padding mask, in-place activations and
residual sums, a tied language model, parametrised weights, images in channels_last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from gradprobe.problems.problem import Problem
from tests.networks import seeded


def cast(value, dtype: torch.dtype):
    """Floating tensors of a batch in another type."""
    if isinstance(value, dict):
        return {k: cast(v, dtype) for k, v in value.items()}
    return value.to(dtype) if value.is_floating_point() else value


def made(recipe: Callable[[int], tuple], rows: int, dtype: torch.dtype = torch.float64) -> Problem:
    """The problem of a recipe ``rows -> (module, inputs, target, loss)``, always the same one."""
    module, inputs, target, loss = seeded(lambda: recipe(rows))
    return Problem(module.to(dtype), (cast(inputs, dtype), target), loss, name=recipe.__name__)


# --- torch's encoder


class Encoder(nn.Module):
    """``nn.TransformerEncoder`` under a key padding mask, and a classifier on the mean of what is no padding."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.1, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(block, 1, nn.LayerNorm(4), enable_nested_tensor=batch_first)
        self.head, self.time = nn.Linear(4, 3), 1 if batch_first else 0
        for name, p in self.named_parameters():
            if "norm" in name:
                nn.init.normal_(p)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        h = self.encoder(x, src_key_padding_mask=padding)
        kept = (~padding if self.time else ~padding.T).unsqueeze(-1).to(h)
        return self.head((h * kept).sum(self.time) / kept.sum(self.time))


def _padded(rows: int, steps: int = 3) -> torch.Tensor:
    """Every second sequence ends a step early ``[B, T]``."""
    padding = torch.zeros(rows, steps, dtype=torch.bool)
    padding[1::2, -1] = True
    return padding


def encoder(rows: int) -> tuple:
    """Samples first."""
    inputs = {"x": torch.randn(rows, 3, 4), "padding": _padded(rows)}
    return Encoder(batch_first=True), inputs, torch.arange(rows) % 3, "cross_entropy"


def time_major_encoder(rows: int) -> tuple:
    """Time first in the inputs; the mask keeps the samples first."""
    inputs = {"x": torch.randn(3, rows, 4), "padding": _padded(rows)}
    return Encoder(batch_first=False), inputs, torch.arange(rows) % 3, "cross_entropy"


# --- a residual network


class Residual(nn.Module):
    """BatchNorm, in-place ReLU, and ``out += x`` as torchvision's ResNets have them; a projected shortcut too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv3, self.bn3 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.3, 2.0)
                nn.init.normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(x))
        out += x
        x = self.relu(out)
        out = self.bn3(self.conv3(x))
        out += self.shortcut(x)
        return self.fc(self.relu(out).mean((2, 3)))


def residual(rows: int) -> tuple:
    """Images of 4 x 4."""
    return Residual(), torch.randn(rows, 2, 4, 4), torch.arange(rows) % 3, "cross_entropy"


# --- a tied language model


class Tied(nn.Module):
    """Causal means of tokens seen so far; the embedding's weight is the output layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(5, 3), nn.Embedding(3, 3)
        self.mix, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
        self.lm_head = nn.Linear(3, 5, bias=False)
        self.lm_head.weight = self.wte.weight
        nn.init.normal_(self.norm.weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(ids.shape[1], device=ids.device)
        h = self.wte(ids) + self.wpe(steps)
        seen = h.cumsum(1) / (1 + steps).unsqueeze(-1)
        return self.lm_head(self.norm(h + torch.tanh(self.mix(seen))))


def next_token(output: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Losses ``[B]``: the mean over positions of the surprise at the next token."""
    output = getattr(output, "logits", output)
    scores = output.log_softmax(-1)[:, :-1]
    return -scores.gather(2, ids[:, 1:, None]).mean((1, 2))


def tied(rows: int) -> tuple:
    """Three tokens each, the target being the tokens themselves."""
    ids = torch.randint(5, (rows, 3))
    return Tied(), ids, ids, next_token


# --- parametrised weights


def parametrised(rows: int) -> tuple:
    """weight_norm on a convolution, spectral_norm on a linear layer; in eval its power iteration rests."""
    net = nn.Sequential(
        weight_norm(nn.Conv1d(2, 3, 2)), nn.Tanh(), nn.Flatten(), spectral_norm(nn.Linear(6, 4)), nn.Tanh()
    )
    net.append(nn.Linear(4, 3))
    return net, torch.randn(rows, 2, 3), torch.arange(rows) % 3, "cross_entropy"


# --- images in channels_last


def channels_last(rows: int) -> tuple:
    """Weights and inputs in channels_last, and a view that flattens them in their logical order."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).to(memory_format=torch.channels_last)
    images = torch.randn(rows, 2, 5, 5).contiguous(memory_format=torch.channels_last)
    return net, images, torch.arange(rows) % 3, "cross_entropy"


MODELS = {f.__name__: f for f in (encoder, time_major_encoder, residual, tied, parametrised, channels_last)}


class Plain(nn.Module):
    """Two linear layers around a GELU: for half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.gelu(self.first(x)))
