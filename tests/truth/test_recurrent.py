"""Noise at every step of torch's recurrent modules: what the estimators give, against recurrences written out here.

Statistical tests look once at a number of blocks fixed beforehand, with a false-alarm rate of 1e-6, and state the
smallest fault of scale that they see with 99.9 % chance.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradprobe.core.streams import Block, Streams
from gradprobe.engine.noise import NOISE
from gradprobe.engine.tiles import unit_noise
from gradprobe.estimators.base import make
from gradprobe.problems.problem import Problem
from tests.truth.checks import SEED, MeanTest, collect, flat, layers_of

STEPS, SAMPLES = 3, 8


class LastState(nn.Module):
    """The last hidden state ``[B, 1]`` of a module with one unit."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.rnn(x)[1]
        return (last[0] if isinstance(last, tuple) else last)[0]


def problem_of(kind: type[nn.RNNBase], gates: int) -> Problem:
    """Normal weights, inputs and targets."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    module = LastState(kind(1, 1, batch_first=True)).double()
    shapes = {"weight_ih": (gates, 1), "weight_hh": (gates, 1), "bias_ih": (gates,), "bias_hh": (gates,)}
    module.load_state_dict({f"rnn.{name}_l0": normal(*shape) for name, shape in shapes.items()})
    return Problem(module, (normal(SAMPLES, STEPS, 1), normal(SAMPLES, 1)), "mse")


def lstm_step(x, h, c, noise, w, u, a, b):
    i, f, g, o = (x * w[k] + a[k] + h * u[k] + b[k] + noise[..., k] for k in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(x, h, c, noise, w, u, a, b):
    r, z = (x * w[k] + a[k] + h * u[k] + b[k] + noise[..., k] for k in range(2))
    of_input, of_state = x * w[2] + a[2] + noise[..., 2], h * u[2] + b[2] + noise[..., 3]
    n = torch.tanh(of_input + torch.sigmoid(r) * of_state)
    return (1 - torch.sigmoid(z)) * n + torch.sigmoid(z) * h, c


def rnn_step(x, h, c, noise, w, u, a, b):
    return torch.tanh(x * w[0] + a[0] + h * u[0] + b[0] + noise[..., 0]), c


def losses_of(problem: Problem, step, values: list[torch.Tensor], noise: torch.Tensor):
    """Losses ``[N, B]`` under noise ``[N, T, B, gates]``, and the hidden states before each step."""
    w, u, a, b = (v.flatten() for v in values)
    h = c = torch.zeros(noise.shape[0], SAMPLES, dtype=torch.float64)
    before = []
    for t in range(STEPS):
        before.append(h)
        h, c = step(problem.inputs[:, t, 0], h, c, noise[:, t], w, u, a, b)
    return (h - problem.target[:, 0]) ** 2, before


@pytest.mark.parametrize(
    ("kind", "gates", "step", "sees"),
    [(nn.LSTM, 4, lstm_step, 0.13), (nn.GRU, 3, gru_step, 0.25), (nn.RNN, 1, rnn_step, 0.13)],
)
def test_lr_has_the_mean_of_the_gradient_under_noise_at_every_step(kind, gates, step, sees):
    """Two independent samples: the estimator's blocks, and backprop under noise drawn here."""
    problem = problem_of(kind, gates)
    (layer,) = layers_of(problem)
    shape, sigma = (2048, STEPS, *layer.outputs[0]), 1.0
    rng, found = np.random.default_rng(5), []
    for _ in range(64):
        leaves = [problem.parameters[n].clone().requires_grad_() for n in layer.parameters]
        losses, _ = losses_of(problem, step, leaves, sigma * torch.from_numpy(rng.standard_normal(shape)))
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), leaves)]))
    reference = torch.stack(found)
    expected = reference.mean(0)
    estimator = make(f"lr(antithetic=True, sigma={sigma})").estimator
    directions = collect(estimator, problem, [layer], 64, 1024)
    # the reference's own noise is added to the estimate's: the difference of two means
    test = MeanTest(directions - (reference - expected), expected)
    clean = flat(make("bp").estimator.directions(problem, [layer], Block(0, 1), SEED))
    away = float((clean - expected).norm() / expected.norm())
    print(f"{kind.__name__}: sees {test.smallest:.3f}, slope {test.slope:.4f}; without noise {away:.3f} away")
    assert away > 2 * test.smallest
    test.check(sees)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_signs_enter_before_the_sum_over_steps(noise):
    """ALR: sum over steps of sign(noise) sign(hidden state before the step) times the loss, copy by copy."""
    problem = problem_of(nn.LSTM, 4)
    (layer,) = layers_of(problem)
    streams, block, sigma = Streams(3, 9), Block(4, 6), 0.4
    eps = [
        unit_noise(NOISE.get(noise)(), streams.key(noise, "activations", layer.name, t, 4), (8, 4), range(6))
        for t in range(STEPS)
    ]
    eps = torch.stack(eps, 1).double()  # [copy, step, sample, gate]
    values = [problem.parameters[n] for n in layer.parameters]
    losses, before = losses_of(problem, lstm_step, values, sigma * eps)
    clean, _ = losses_of(problem, lstm_step, values, torch.zeros_like(eps))
    want = torch.zeros(4, 4, dtype=torch.float64)  # parameter, gate
    for k in range(6):
        for b in range(SAMPLES):
            factor = (losses[k, b] - clean[0, b]) / SAMPLES / 6
            for t in range(STEPS):
                sign = torch.sign(eps[k, t, b])
                want[0] += factor * sign * torch.sign(problem.inputs[b, t, 0])
                want[1] += factor * sign * torch.sign(before[t][k, b])
                want[2:] += factor * sign
    got = make(f"alr(noise={noise}, sigma={sigma})").estimator.directions(problem, [layer], block, streams)
    for name, wanted in zip(layer.parameters, want, strict=True):
        torch.testing.assert_close(got[name].flatten(), wanted, rtol=1e-10, atol=1e-14)
