"""LR on spiking layers: its mean is the smoothed loss's gradient and no surrogate's; the analysis runs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import norm

import gradprobe as gp
from gradprobe.core.streams import Block
from gradprobe.estimators.base import make
from gradprobe.problems import NETWORKS
from gradprobe.problems.problem import Problem
from tests.truth.checks import SEED, MeanTest, collect, layers_of

pytest.importorskip("snntorch", reason="the extra snn is not installed")

SCRIPT = Path(__file__).parents[2] / "analyses" / "surrogate_bias.py"
BETA, SIGMA, TARGET = 0.8, 0.5, 1
INPUT = np.array([0.9, -0.4])
WEIGHT, BIAS = np.array([0.8, 0.3]), 0.2
READ, READ_BIAS = np.array([1.5, -2.0, 0.5]), np.array([0.1, 0.0, -0.3])


def hidden_neuron() -> Problem:
    """Two inputs, one spiking neuron, three readout potentials, two steps; cross entropy of one sample."""
    net = NETWORKS.get("snn")((2,), 3, hidden=1, layers=1, steps=2, beta=BETA).double()
    values = {
        "linears.0.weight": WEIGHT[None],
        "linears.0.bias": np.array([BIAS]),
        "linears.1.weight": READ[:, None],
        "linears.1.bias": READ_BIAS,
    }
    with torch.no_grad():
        for name, value in values.items():
            net.get_parameter(name).copy_(torch.from_numpy(value))
    return Problem(net, (torch.from_numpy(INPUT)[None], torch.tensor([TARGET])))


def loss_of(spikes: tuple[int, int]) -> float:
    """Cross entropy of the readout's potentials, summed over both steps, given when the neuron fired."""
    first = READ * spikes[0] + READ_BIAS
    logits = first + BETA * first + READ * spikes[1] + READ_BIAS
    return float(logsumexp(logits) - logits[TARGET])


def smoothed_loss(current: float) -> float:
    """E of the loss with noise sigma e on the hidden current at both steps: a sum over the four spike trains.

    u1 = c + sigma e1, s1 = [u1 > 1]; u2 = beta u1 + c + sigma e2 - s1, so that given e1 the second spike has
    probability Phi((beta u1 + c - s1 - 1)/sigma). Adaptive quadrature over e1 on each side of the first jump.
    """
    edge = (1 - current) / SIGMA
    total = 0.0
    for low, high, fired in ((-9.0, edge, 0), (edge, 9.0, 1)):

        def value(e: float, fired: int = fired) -> float:
            chance = norm.cdf((BETA * (current + SIGMA * e) + current - fired - 1) / SIGMA)
            return norm.pdf(e) * (chance * loss_of((fired, 1)) + (1 - chance) * loss_of((fired, 0)))

        total += quad(value, low, high, epsabs=1e-11, epsrel=1e-11)[0]
    return total


def smoothed_gradient(h: float = 1e-3) -> torch.Tensor:
    """Of the hidden weights and bias, by central differences of fourth order of the quadrature."""
    current = float(WEIGHT @ INPUT + BIAS)
    weights = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    slope = sum(w * smoothed_loss(current + k * h) for k, w in weights.items()) / h
    return torch.tensor([*(slope * INPUT), slope], dtype=torch.float64)


def test_quadrature_is_the_loss_of_the_network() -> None:
    """The written-out losses against the network's own, under 40,000 copies of plain noise: 5 errors."""
    problem = hidden_neuron()
    net, copies = problem.module, 40_000
    e = SIGMA * torch.randn(2, copies, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = iter(e)
    hook = net.linears[0].register_forward_hook(lambda module, args, output: output + next(step))
    with torch.no_grad():
        logits = net(problem.inputs.expand(copies, 2))
    hook.remove()
    losses = torch.nn.functional.cross_entropy(logits, torch.full((copies,), TARGET), reduction="none")
    assert len(losses.round(decimals=6).unique()) == 4
    expected = smoothed_loss(float(WEIGHT @ INPUT + BIAS))
    assert abs(float(losses.mean()) - expected) < 5 * float(losses.std()) / math.sqrt(copies)


def test_mean_below_a_hidden_threshold_is_the_gradient_of_the_smoothed_loss() -> None:
    """LR against the quadrature: 64 blocks of 512 copies, one look, false alarm 1e-6.

    The gradient of the default surrogate is off by more than the test can see.
    """
    problem, gradient = hidden_neuron(), smoothed_gradient()
    layers = layers_of(problem)[:1]
    estimator = make("lr", {"antithetic": True, "sigma": SIGMA}).estimator
    test = MeanTest(collect(estimator, problem, layers, 64, 512), gradient)
    test.check(0.15)
    found = make("bp").estimator.directions(problem, layers, Block(0, 1), SEED)
    assert abs(float(found["linears.0.bias"][0]) / float(gradient[-1]) - 1) > 2 * test.smallest


def test_directions_are_the_same_for_every_surrogate() -> None:
    """Bitwise; the surrogates' gradients differ."""
    found, gradients = [], []
    for options in ({}, {"slope": 5.0}, {"surrogate": "atan"}, {"surrogate": "straight-through"}):
        problem = gp.load_problem("snn", batch_size=8, model_args={"hidden": 8, **options})
        found.append(gp.estimate(problem, "lr", copies=20, sigma=0.1))
        gradients.append(gp.estimate(problem, "bp"))
    for other, gradient in zip(found[1:], gradients[1:], strict=True):
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])
        assert not torch.equal(gradients[0]["linears.0.weight"], gradient["linears.0.weight"])


def test_analysis_runs_and_goes_on(tmp_path: Path) -> None:
    """The second call finds every cell and writes the same table."""
    words = [sys.executable, str(SCRIPT), "--smoke", "--out", "made/bias", "--runs", "runs"]
    tables = []
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "difference between surrogates 0 (0: bitwise the same)" in done.stdout
        tables.append(pd.read_csv(tmp_path / "made" / "bias.csv"))
        units = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("units/*.npz")}
    assert len(units) == 3 * (2 * 3 + 2 * 2)  # seeds, and the layers of each cell
    assert max(units.values()) < (tmp_path / "made" / "bias.csv").stat().st_mtime_ns
    pd.testing.assert_frame_equal(*tables)
    assert set(tables[0]["stage"]) == {"untrained", "trained"}
    for ending in ("png", "pdf", "json"):
        assert (tmp_path / "made" / f"bias.{ending}").exists()
