"""Two problems that take milliseconds, for tests about everything but the numbers."""

from __future__ import annotations

import torch
from torch import nn

from gradprobe import Problem


def linear_problem(seed: int = 0, samples: int = 6) -> Problem:
    """Linear regression: one layer, one output."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Linear(3, 1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    inputs = torch.randn(samples, 3, generator=generator)
    return Problem(module, (inputs, torch.randn(samples, 1, generator=generator)), "mse")


def classifier(seed: int = 0, samples: int = 8, scale: float = 1.0) -> Problem:
    """Two layers, ``first`` and ``last``, and cross entropy; ``scale`` gives other weights on the same batch."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential()
    module.add_module("first", nn.Linear(4, 5))
    module.add_module("tanh", nn.Tanh())
    module.add_module("last", nn.Linear(5, 3))
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    inputs = torch.randn(samples, 4, generator=generator)
    return Problem(module, (inputs, torch.randint(0, 3, (samples,), generator=generator)))
