"""How the smoothed reference is made: by backprop under noise where that is right, else by scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.continuity import pathwise_holds
from gradprobe.engine.draw import Draw
from gradprobe.estimators.readout import ReadOut
from gradprobe.probes.checks import layers_of
from tests.problems_small import CATALOGUE, build
from tests.problems_tiny import classifier
from tests.truth import naive
from tests.truth.checks import flat

SMALL = {"copies": 8, "block": 4, "seeds": 2}


class Spike(torch.autograd.Function):
    """A threshold with the slope of something else (the derivative of arctan)."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        (v,) = ctx.saved_tensors
        return g / (1 + (math.pi * v) ** 2)


class Net(nn.Module):
    """Two layers with a function between them."""

    def __init__(self, function) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def spiking() -> gp.Problem:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 4, generator=generator), torch.arange(8) % 3
    return gp.Problem(Net(Spike.apply), (x, y))


FUNCTIONS = {
    "spikes with a surrogate": (Spike.apply, False),
    "thresholds without slope": (lambda v: (v > 0).to(v.dtype), False),
    "rounding": (lambda v: torch.round(4 * v), False),
    "a detached path": (lambda v: v.detach() + 0.3 * v, False),
    "straight through": (lambda v: v + (torch.sign(v) - v).detach(), False),
    "relu": (torch.relu, True),
    "tanh": (torch.tanh, True),
    "a steep sigmoid": (lambda v: torch.sigmoid(20 * v), True),
    "absolute values": (torch.abs, True),
}


@pytest.mark.parametrize("where", ["activations", "weights"])
@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.3])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_pathwise_holds_where_backprop_is_the_derivative(name: str, sigma: float, where: str) -> None:
    """For the first layer; what follows the function is differentiable in any case."""
    function, holds = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 4, generator=generator), torch.arange(8) % 3
    problem = gp.Problem(Net(function), (x, y))
    first, last = layers_of(problem)
    share = "sample" if where == "activations" else "batch"
    draw = Draw(where, "layerwise", share=share, sigma=sigma)
    assert pathwise_holds(problem, draw, [first]) is holds
    assert pathwise_holds(problem, draw, [last])


@pytest.mark.parametrize("name", [n for n in CATALOGUE if n != "checkpointed"])
def test_pathwise_holds_on_every_small_problem(name: str) -> None:
    """All are continuous; but an embedding with max_norm scales noisy weights down, which backprop does not see."""
    problem = build(name)
    layers = layers_of(problem)
    holds = pathwise_holds(problem, Draw("weights", "joint", share="batch", sigma=0.05), layers)
    assert holds is (name != "max-norm")
    noisy = [layer for layer in layers if layer.activations]
    for layer in noisy:
        assert pathwise_holds(problem, Draw("activations", "layerwise", sigma=0.05), [layer])


def test_the_reference_by_scores_is_an_independent_run_of_the_exact_read_out() -> None:
    problem = spiking()
    ds = gp.probe(problem, ["alr", "lr(centre=none)"], reference="smoothed", reference_copies=12, **SMALL)
    ways = ds.attrs["smoothed"]
    assert "score" in ways
    first = layers_of(problem)[0]
    draw = Draw("activations", "layerwise", sigma=0.01)
    for seed in (0, 1):
        streams = Streams(0, seed, "smoothed")
        blocks = [
            flat(naive.read(problem, draw, [first], [ReadOut()], Block(k, 4), streams)[0]) for k in range(3)
        ]
        mean = torch.stack(blocks).mean(0)
        at = {"reference": "smoothed", "estimator": "alr", "seed": seed}
        held = ds.sel(at).isel(parameter=[0, 1])
        assert float(held["reference_sqnorm"].sum()) == pytest.approx(float(mean @ mean), rel=1e-3)
        squares = np.mean([float(b @ b) for b in blocks])
        assert float(held["reference_block_sqnorm"].sum()) == pytest.approx(squares, rel=1e-3)
        assert (held["reference_blocks"] == 3).all()


def test_the_usual_numbers_of_copies() -> None:
    ds = gp.probe(spiking(), ["lr"], reference="smoothed", copies=200, block=10, seeds=1)
    blocks = ds["reference_blocks"].sel(reference="smoothed", estimator="lr", seed=0).values
    assert blocks.tolist() == [20, 20, 8, 8]  # by scores as many as copies, pathwise 64


def test_the_way_may_be_chosen_and_a_run_keeps_its_way(tmp_path) -> None:
    out = tmp_path / "run"
    common = {"reference": "smoothed", "reference_copies": 8, **SMALL}
    ds = gp.probe(spiking(), ["lr"], out=out, smoothed_by="pathwise", **common)
    assert "score" not in ds.attrs["smoothed"]
    again = gp.probe(spiking(), ["lr", "alr"], out=out, **common)
    assert "score" not in again.attrs["smoothed"]
    with pytest.raises(gp.UsageError, match="has smoothed references by pathwise, not by score"):
        gp.probe(spiking(), ["lr"], out=out, smoothed_by="score", **common)
    with pytest.raises(gp.UsageError, match="unknown smoothed_by 'scores'. Did you mean 'score'"):
        gp.probe(classifier(), ["lr"], smoothed_by="scores", **SMALL)
    both = gp.probe(classifier(), ["lr"], smoothed_by="score", **common)
    assert "pathwise" not in both.attrs["smoothed"]


def test_workers_use_the_same_way(tmp_path) -> None:
    common = {
        "estimators": ["lr"],
        "reference": "smoothed",
        "reference_copies": 8,
        "smoothed_by": "score",
        **SMALL,
    }
    one, two = gp.probe(classifier(), **common), gp.probe(classifier(), workers=2, threads=1, **common)
    assert np.array_equal(one["reference_dot"], two["reference_dot"])


def test_copies_that_are_lost_make_the_reference_unknown() -> None:
    def loss(output, target):
        return torch.where(output.sum(1) > 0.5, torch.inf, output.sum(1))

    x = torch.zeros(4, 2)
    module = nn.Sequential(nn.Linear(2, 2), nn.Hardtanh())
    nn.init.zeros_(module[0].bias)
    problem = gp.Problem(module, (x, x), loss)
    ds = gp.probe(problem, ["lr"], reference="smoothed", smoothed_by="score", sigma=1.0, **SMALL)
    assert bool(ds["reference_dot"].sel(reference="smoothed").isnull().all())
    assert "the smoothed reference is not finite" in ds.attrs["notes"]


def test_scores_have_the_gradient_of_a_smoothed_threshold_for_a_mean() -> None:
    """P(w + sigma eps > 0) has derivative phi(w/sigma)/sigma; a t-test at 1e-6 that sees 9 %.

    LR with one sample and loss 1[v > 0], n = 40,000 copies in 25 seeds of 1,600: standard error of the mean about
    sqrt(E(L - c)^2 eps^2)/sigma/sqrt(n) = 0.6/sigma/200, against phi/sigma = 0.35/sigma: 0.9 %. Two-sided 1e-6 is 6.5
    standard errors of 25 seeds (Student's t), and 3 more give power 99.9 %.
    """

    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.fc.weight, 0.15)

        def forward(self, x):
            return Spike.apply(self.fc(x))

    problem = gp.Problem(Threshold(), (torch.ones(1, 1), torch.zeros(1, 1)), lambda output, _: output[:, 0])
    sigma = 0.3
    ds = gp.probe(
        problem,
        ["lr"],
        reference="smoothed",
        copies=40,
        block=40,
        seeds=25,
        sigma=sigma,
        reference_copies=1600,
    )
    (square,) = ds["reference_sqnorm"].sel(reference="bp", seed=0).isel(estimator=0).values
    surrogate = math.sqrt(square)
    got = ds["reference_dot"].sel(reference="smoothed").isel(estimator=0).values.ravel() / surrogate
    truth = math.exp(-0.5 * 0.25) / math.sqrt(2 * math.pi) / sigma
    z = (got.mean() - truth) / (got.std(ddof=1) / 5)
    assert abs(z) < 6.5
    assert abs(surrogate - truth) > 0.1 * truth  # which is what the surrogate's slope is not
