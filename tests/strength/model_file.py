"""A problem whose classes are in a module file, as a user's own would be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import gradprobe as gp
from gradprobe.estimators.base import Block, Estimator, Layer, Problem, Streams, make
from gradprobe.probes.messages import TorchState
from gradprobe.probes.worker import _turn


class Net(nn.Module):
    """Two layers."""

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.wait = wait
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.wait)
        return self.last(torch.tanh(self.first(x)))


def halved(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss of one's own."""
    return nn.functional.cross_entropy(output, target, reduction="none") / 2


def problem(wait: float = 0.0, loss: Any = halved) -> gp.Problem:
    """The problem; each forward can be made to last."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    return gp.Problem(Net(wait), (x, torch.arange(8) % 3), loss)


def state_under(state: TorchState) -> TorchState:
    """Settings of torch in the process that computes, after those of another were taken over."""
    with _turn(state):
        return TorchState.here(torch.get_num_threads())


@dataclass(frozen=True)
class Half(Estimator):
    """Half the gradient; may fail or die in a process that is not the one which made it."""

    stochastic = False
    home: int = 0
    end: str = ""

    def directions(self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams) -> dict:
        import os

        if self.end == "raise" and os.getpid() != self.home:
            raise Unknown("a class that needs two arguments", 2)
        if self.end == "die" and os.getpid() != self.home:
            os._exit(1)
        found = make("bp").estimator.directions(problem, layers, block, streams)
        return {name: g / 2 for name, g in found.items()}


class Unknown(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
