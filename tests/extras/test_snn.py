"""The spiking network: it trains, is probed by everything, and holds its truths."""

from __future__ import annotations

import math
import pickle
import sys

import numpy as np
import pytest
import torch
from scipy.special import roots_hermitenorm
from scipy.stats import norm

import gradprobe as gp
from gradprobe.core.streams import Block
from gradprobe.estimators.base import make
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.build import build
from gradprobe.problems.problem import Problem
from tests.networks import (
    DRAWS,
    check_engines,
    check_oracle,
    check_probed,
    check_training,
    message_of,
    seeded,
    tiny,
)
from tests.truth.checks import SEED, MeanTest, collect, layers_of

pytest.importorskip("snntorch", reason="the extra snn is not installed")

LAYERS = ["linears.0", "linears.1", "linears.2"]
BETA = 0.8


def tiny_snn(**options) -> Problem:
    return tiny("snn", "digits", 2, hidden=3, layers=1, steps=3, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"surrogate": "atan", "init_hidden": True},
        {"readout": "spikes", "surrogate": "atan"},
    ],
    ids=str,
)
def test_trains(options):
    check_training("snn", "digits", 4, 2e-3, 1.0, 0.8, **options)


# --- the forward and its surrogate gradient, written out


def by_hand(net, x: np.ndarray, readout: str) -> np.ndarray:
    """Logits of one input, in plain numpy."""
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in net.linears]
    u = [np.zeros(len(b)) for _, b in layers]
    total = 0.0
    for _ in range(net.steps):
        signal = x
        for k, (weight, bias) in enumerate(layers):
            last = k == len(layers) - 1
            fired = 0 if last and readout == "membrane" else u[k] > 1
            u[k] = BETA * u[k] + weight @ signal + bias - fired
            signal = (u[k] > 1).astype(float)
        total = total + (u[-1] if readout == "membrane" else signal)
    return total


@pytest.mark.parametrize("init_hidden", [False, True])
@pytest.mark.parametrize("readout", ["membrane", "spikes"])
def test_forward_is_the_recursion(readout, init_hidden):
    options = {"hidden": 5, "layers": 2, "steps": 6, "beta": BETA}
    factory = NETWORKS.get("snn")
    net = seeded(lambda: factory((4,), 3, readout=readout, init_hidden=init_hidden, **options)).double()
    with torch.no_grad():
        for linear in net.linears:
            linear.weight.mul_(4)
        x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        got = net(x)
        assert torch.equal(net(x), got)
    expected = np.stack([by_hand(net, row.numpy(), readout) for row in x])
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-6)  # beta is kept in float32
    assert len(np.unique(expected)) > 3


SLOPES = {
    "fast_sigmoid": lambda u, k: 1 / (1 + k * abs(u)) ** 2,
    "atan": lambda u, k: k / 2 / (1 + (math.pi / 2 * k * u) ** 2),
    "sigmoid": lambda u, k: k / (4 * math.cosh(k * u / 2) ** 2),
    "straight-through": lambda u, k: 1.0,
}


def neuron(surrogate: str = "fast_sigmoid", x: float = 0.9, **options) -> Problem:
    """One neuron, one input, two steps; the squared error of its number of spikes against 0.6."""
    factory = NETWORKS.get("snn")
    options = {"layers": 0, "steps": 2, "beta": BETA, "readout": "spikes", "surrogate": surrogate} | options
    net = factory((1,), 1, **options).double()
    with torch.no_grad():
        net.linears[0].weight.fill_(0.8)
        net.linears[0].bias.fill_(0.1)
    inputs = torch.full((1, 1), x, dtype=torch.float64)
    return Problem(net, (inputs, torch.full((1, 1), 0.6, dtype=torch.float64)), "mse")


@pytest.mark.parametrize("init_hidden", [False, True])
@pytest.mark.parametrize(
    ("surrogate", "slope"),
    [(name, k) for name in SLOPES for k in (None, 5.0) if k is None or name != "straight-through"],
)
def test_backprop_is_the_chain_rule_with_the_surrogate(surrogate, slope, init_hidden):
    problem = neuron(surrogate, slope=slope, init_hidden=init_hidden)
    for _ in range(2):  # a second time: no graph of the first is left
        got = gp.estimate(problem, "bp")
    steep = slope or {"atan": 2.0}.get(surrogate, 25.0)
    current = 0.8 * 0.9 + 0.1
    first = current - 1
    second = BETA * current + current - (first > 0) - 1
    count = int(first > 0) + int(second > 0)
    slopes = [SLOPES[surrogate](first, steep), SLOPES[surrogate](second, steep) * (1 + BETA)]
    expected = 2 * (count - 0.6) * sum(slopes)
    assert float(got["linears.0.bias"]) == pytest.approx(expected, rel=1e-6)
    assert float(got["linears.0.weight"]) == pytest.approx(0.9 * expected, rel=1e-6)


def test_sigmoid_far_from_the_threshold_has_no_gradient_instead_of_none():
    """snntorch's own is NaN there: the square of an overflown exponential."""
    problem = neuron("sigmoid", x=-60.0)
    assert all(float(g.abs().sum()) < 1e-9 for g in gp.estimate(problem, "bp").values())


# --- probes


@pytest.mark.parametrize("init_hidden", [False, True])
def test_probed_by_everything(init_hidden):
    options = {"hidden": 8, "init_hidden": init_hidden}
    problem = gp.load_problem("snn", batch_size=8, model_args=options)
    before = problem.fingerprints()
    no_forward_mode = dict.fromkeys(("fg-w", "fg-a"), set(LAYERS))  # the surrogate has a backward rule alone
    check_probed(problem, LAYERS, "sample", no_forward_mode)
    assert all(x.calls == 8 for x in layers_of(problem))
    assert problem.fingerprints() == before
    assert pickle.loads(pickle.dumps(problem)).fingerprints() == before


def test_what_the_weights_do_not_show_is_in_the_fingerprint():
    """A run of one surrogate is not continued with another."""
    options = [{}, {"surrogate": "atan"}, {"slope": 5.0}, {"readout": "spikes"}, {"steps": 4}]
    found = [gp.load_problem("snn", model_args=o).fingerprints()["model"] for o in options]
    assert len(set(found)) == len(options)


def test_engines():
    """Tiles and traces agree; vmap refuses the surrogate's function of autograd."""
    check_engines(tiny_snn(), {"activations": {"tile", "loop graph"}, "weights": {"loop graph"}})


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.where}-{draw.injection}")
@pytest.mark.parametrize("init_hidden", [False, True])
def test_naive_loop_agrees(draw, init_hidden):
    check_oracle(tiny_snn(init_hidden=init_hidden), draw)


def smoothed_count_loss(w: float, b: float, x: float, sigma: float) -> float:
    """E (s1 + s2 - 0.6)^2 of the one neuron with noise sigma e on its current at both steps.

    Given e1, u1 = c + sigma e1 with c = w x + b and s1 = [u1 > 1]; then u2 = beta u1 + c + sigma e2 - s1, and s2
    is 1 with probability Phi((beta u1 + c - s1 - 1)/sigma). Over e1 by Gauss-Legendre on each side of the jump
    (cut at nine standard deviations).
    """
    current, nodes = w * x + b, np.polynomial.legendre.leggauss(60)
    edge = (1 - current) / sigma
    total = 0.0
    for low, high, fired in ((-9.0, edge, 0), (edge, 9.0, 1)):
        e = (high - low) / 2 * nodes[0] + (high + low) / 2
        u = current + sigma * e
        chance = norm.cdf((BETA * u + current - fired - 1) / sigma)
        value = chance * (fired + 0.4) ** 2 + (1 - chance) * (fired - 0.6) ** 2
        total += (high - low) / 2 * (nodes[1] * norm.pdf(e) * value).sum()
    return total


def test_smoothed_loss_by_another_rule():
    """The quadrature above against plain Gauss-Hermite sums on a product grid, which the jumps make rough."""
    e, weights = roots_hermitenorm(180)
    e1, e2 = np.meshgrid(e, e, indexing="ij")
    u1 = 0.82 + 0.5 * e1
    u2 = BETA * u1 + 0.82 + 0.5 * e2 - (u1 > 1)
    values = ((u1 > 1) * 1.0 + (u2 > 1) - 0.6) ** 2
    rough = weights @ values @ weights / (2 * math.pi)
    assert smoothed_count_loss(0.8, 0.1, 0.9, 0.5) == pytest.approx(rough, rel=0.05)


@pytest.mark.parametrize("init_hidden", [False, True])
def test_mean_is_the_gradient_of_the_smoothed_loss(init_hidden):
    """LR against central differences of the quadrature; 64 blocks, false alarm 1e-6."""
    sigma, h = 0.5, 1e-4
    problem = neuron(init_hidden=init_hidden)
    points = [((0.8 + h, 0.1), (0.8 - h, 0.1)), ((0.8, 0.1 + h), (0.8, 0.1 - h))]
    gradient = [
        (smoothed_count_loss(*up, 0.9, sigma) - smoothed_count_loss(*down, 0.9, sigma)) / (2 * h)
        for up, down in points
    ]
    estimator = make("lr", {"antithetic": True, "sigma": sigma}).estimator
    test = MeanTest(collect(estimator, problem, layers_of(problem), 64, 512), torch.tensor(gradient).double())
    print(f"sees {test.smallest:.3f}, slope {test.slope:.4f}")
    test.check(0.15)
    # the surrogate's gradient is another thing, and would be seen
    surrogate = make("bp").estimator.directions(problem, layers_of(problem), Block(0, 1), SEED)
    off = abs(float(surrogate["linears.0.bias"]) / gradient[1] - 1)
    assert off > 2 * test.smallest


# --- bad input


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("digits", {"surrogate": "sigmod"}, ["unknown surrogate 'sigmod'", "Did you mean 'sigmoid'"]),
        ("digits", {"slope": -1.0}, ["slope must be a positive number, not -1.0"]),
        ("digits", {"surrogate": "straight-through", "slope": 2.0}, ["has no slope; leave slope out"]),
        ("digits", {"beta": 1.5}, ["beta must be a number from 0 to 1, not 1.5"]),
        ("digits", {"steps": 0}, ["steps must be a positive whole number, not 0"]),
        ("digits", {"layers": -1}, ["layers must be a whole number from 0 on, not -1"]),
        ("digits", {"readout": "mem"}, ["unknown readout 'mem'"]),
        ("digits", {"init_hidden": "yes"}, ["unknown init_hidden 'yes'"]),
        ("communities", {}, ["model 'snn' needs input_shape", "digits"]),
    ],
)
def test_bad_options_get_one_sentence(data, options, words):
    found = DATASETS.get(data)("train")
    message = message_of(lambda: build("snn", NETWORKS.get("snn"), found.offers, options, data))
    assert all(word in message for word in words), message


def test_absent_library_gets_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    message = message_of(lambda: gp.load_problem("snn"))
    assert message == "model 'snn' needs snntorch: pip install \"gradprobe[snn]\"."
