from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.streams import Block, Streams
from gradprobe.engine import vectorised
from gradprobe.engine.draw import Draw
from gradprobe.estimators import _usual
from gradprobe.estimators._usual import usual_engine
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block
from gradprobe.estimators.readout import ReadOut
from gradprobe.probes.checks import layers_of
from gradprobe.probes.estimate import estimate

JOINT = Draw("weights", "joint", share="batch", antithetic=True)


def images(channels: int) -> gp.Problem:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(8, channels, 12, 12)
    net(x)
    return gp.Problem(net, (x, torch.arange(8) % 3))


def vectors(hidden: int) -> gp.Problem:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 3))
    return gp.Problem(net, (torch.randn(64, 16), torch.arange(64) % 3))


def chosen(problem: gp.Problem, which: slice = slice(None), copies: int = 40) -> str:
    with problem.frozen():
        return str(usual_engine(problem, JOINT, layers_of(problem)[which], copies))


def test_small_matrices_run_together_and_large_ones_one_after_another() -> None:
    assert chosen(vectors(8)) == "vmap x40"
    assert chosen(vectors(8), copies=8) == "auto"
    assert chosen(vectors(10_000)) == "loop x10"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_looped_with_their_channels_last_and_late_layers_run_together(channels: int) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 100, 3))
    problem = gp.Problem(net, (torch.randn(16, channels, 12, 12), torch.arange(16) % 3))
    assert chosen(problem) == "loop channels_last x10"
    assert chosen(problem, slice(1, 2)) == "vmap x40"


@pytest.mark.parametrize("make", [lambda: images(1), lambda: images(3), lambda: vectors(8)])
@pytest.mark.parametrize("antithetic", [False, True])
def test_an_estimate_is_the_loops_and_has_the_same_bits_again(make, antithetic: bool) -> None:
    problem, options = make(), {"injection": "joint", "antithetic": antithetic, "sigma": 0.1, "copies": 64}
    found = [estimate(problem, "es", block=64, **options) for _ in range(5)]
    assert all(torch.equal(found[0][name], again[name]) for again in found for name in again)
    draw = Draw("weights", "joint", share="batch", antithetic=antithetic, sigma=0.1)
    reading = Reading(make(), draw, layers_of(problem), [ReadOut()], Streams(0, 0))
    looped = read_block(reading, Block(0, 64), "loop").directions[0]
    assert all(torch.allclose(found[0][name], looped[name], atol=1e-4) for name in looped)


def test_an_engine_that_fails_on_later_values_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = vectors(8)
    options = {"injection": "joint", "copies": 40, "block": 40}
    expected = [estimate(problem, "es", **options) for _ in range(5)][0]
    true, failed = vectorised._moved, []

    def fails_once(forward):
        if not failed:
            failed.append(forward)
            raise RuntimeError("the values decide which way")
        return true(forward)

    monkeypatch.setattr(vectorised, "_moved", fails_once)
    found = estimate(problem, "es", **options)
    assert failed
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_derivatives_have_an_engine_of_their_own_beside_losses_of_the_same_sigma(monkeypatch) -> None:
    monkeypatch.setattr(_usual, "agrees", lambda problem, draw, layers, engine: not draw.derived)
    problem = vectors(8)
    losses = Draw(sigma=1.0)
    layers = layers_of(problem)[:1]
    with problem.frozen():
        assert str(usual_engine(problem, losses, layers, 100)) == "vmap x100"
        assert usual_engine(problem, replace(losses, measure="derivative"), layers, 100) == "auto"
