"""Optimisers of torch against one for each walker, in a loop of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe import UsageError
from gradprobe.problems.landscape import find_function
from gradprobe.trajectory.stepping import Stepper, find_optimizer

NAMES = [
    name
    for name, item in vars(torch.optim).items()
    if isinstance(item, type) and issubclass(item, torch.optim.Optimizer) and name != "Optimizer"
]
STARTS = [(-1.0, 0.5), (0.4, -0.7), (2.0, 0.9)]


class Clipped(torch.optim.SGD):
    """Cuts the length of all its parameters together, as factories of one's own may."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 10.0)
        return super().step(closure)


def alone(make, start, steps, rate):
    function = find_function("beale")
    p = torch.tensor(start, dtype=torch.float64)[:, None].requires_grad_()
    optimizer = make([p], lr=rate)
    for _ in range(steps):
        p.grad = function.gradient(p.detach()[:, 0])[:, None]
        optimizer.step()
    return p.detach()[:, 0].numpy()


def agree(given, make, label):
    path = gp.descend("beale", "bp", start=STARTS, optimizer=given, steps=12, lr=0.003, seeds=1)
    for k, start in enumerate(STARTS):
        want = alone(make, start, 12, 0.003)
        np.testing.assert_allclose(path.position.values[0, k, 0, -1], want, rtol=1e-9, err_msg=label)
        assert np.abs(want - start).max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_each_of_torch_works_or_is_refused(name):
    if name in ("LBFGS", "SparseAdam"):
        with pytest.raises(UsageError, match="does not work here"):
            gp.descend("beale", "bp", optimizer=name, steps=2, seeds=1)
        return
    agree(name.lower(), getattr(torch.optim, name), name)


@pytest.mark.parametrize(
    "make",
    [
        Clipped,
        lambda parameters, lr: torch.optim.SGD([{"params": list(parameters)}], lr=2 * lr),
        lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1, amsgrad=True),
    ],
)
def test_factories(make):
    agree(make, make, "factory")


@pytest.mark.parametrize("name", ["sgd(momentum=0.5)", "adam", "adafactor", "muon"])
def test_rates_of_their_own(name):
    """Five walkers, three rates, in no order."""
    _, factory = find_optimizer(name)
    rates = torch.tensor([0.1, 0.001, 0.1, 0.01, 0.001], dtype=torch.float64)
    first = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    together = Stepper(factory, first, rates, decay=0.2)
    singles = [Stepper(factory, first[k : k + 1], rates[k : k + 1], decay=0.2) for k in range(5)]
    at = first
    for step in range(4):
        directions = torch.sin(at * (step + 2))
        moved = together.step(at, directions, step)
        each = [s.step(at[k : k + 1], directions[k : k + 1], step) for k, s in enumerate(singles)]
        assert torch.equal(moved, torch.cat(each))
        at = moved.clamp(-0.9, 0.9)  # projected in between
