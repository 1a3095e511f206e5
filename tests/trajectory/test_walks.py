"""Backprop against gradient descent written again; one block of noise against the older engine; exact moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import gradprobe as gp
from gradprobe.core.streams import Streams
from gradprobe.engine.parts import Part
from gradprobe.engine.run import run
from gradprobe.estimators.base import make
from gradprobe.estimators.blockread import BlockRead, Reading
from gradprobe.problems.landscape import find_function
from gradprobe.trajectory.sources import chunk_length, function_layers

ALARM = 1e-6
"""False-alarm rate of each statistical test here."""


def beale(p):
    x, y = p
    u, v, w = 1.5 - x + x * y, 2.25 - x + x * y * y, 2.625 - x + x * y**3
    return np.array(
        [
            2 * (u * (y - 1) + v * (y * y - 1) + w * (y**3 - 1)),
            2 * (u * x + v * 2 * x * y + w * 3 * x * y * y),
        ]
    )


def rosenbrock(p):
    x, y = p
    return np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])


HAND = {"beale": beale, "rosenbrock": rosenbrock}
OPTIONS = {
    "plain": {},
    "momentum": {"optimizer": "sgd(momentum=0.8)"},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "decay": {"decay": 0.05},
    "clip": {"clip": 2.0, "lr": 5e-3},
    "normalised": {"step": "normalised", "lr": 0.004},
    "project": {"bounds": "project", "lr": 2e-3, "domain": [(-3.02, 0.2), (0.95, 2.01)]},
}


def by_hand(
    gradient, start, steps, lr, optimizer="sgd", decay=0.0, clip=None, step="raw", bounds=None, domain=None
):
    x, path = np.array(start, dtype=float), [np.array(start, dtype=float)]
    m, v = np.zeros(2), np.zeros(2)
    for k in range(steps):
        g = gradient(x)
        size = math.sqrt(g[0] ** 2 + g[1] ** 2)
        if clip is not None and size > clip:
            g = g * clip / size
        if step == "normalised":
            g = g / size
        rate = lr / (1 + decay * k)
        if optimizer == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x = x - rate * (m / (1 - 0.9 ** (k + 1))) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        else:
            m = (0.8 * m + g) if "momentum" in optimizer else g
            x = x - rate * m
        if bounds == "project":
            x = np.array([min(max(t, low), high) for t, (low, high) in zip(x, domain, strict=True)])
        path.append(x)
    return np.array(path)


@pytest.mark.parametrize("name", list(HAND))
@pytest.mark.parametrize("kind", list(OPTIONS))
def test_backprop_is_gradient_descent(kind, name):
    options = {"lr": 2e-4} | OPTIONS[kind]
    start = (-3.0, 2.0) if name == "beale" else (-1.2, 1.0)
    path = gp.descend(name, "bp", steps=200, seeds=1, start=start, **options)
    want = by_hand(HAND[name], start, 200, **options)
    np.testing.assert_allclose(path.position.values[0, 0], want, rtol=1e-9, atol=1e-11)
    assert np.abs(want[-1] - want[0]).max() > 0.05
    if kind == "project":
        low, high = np.array(options["domain"]).T
        assert ((want == low) | (want == high)).any(), "the edge is met"
    hand = np.array([HAND[name](p) for p in want[:-1]])
    np.testing.assert_allclose(path.direction.values[0, 0, :-1], hand, rtol=1e-7, atol=1e-8)


SPECS = [
    "lr",
    "alr",
    "es",
    "aes",
    "hybrid",
    "a-hybrid",
    "lr(centre=mean)",
    "lr(centre=none)",
    "lr(antithetic=True)",
    "lr(antithetic=True, centre=mean)",
    "alr(antithetic=True)",
    "lr(noise=laplace)",
    "alr(noise=laplace)",
    "lr(noise=rademacher)",
    "lr(encode=sign-noise)",
    "lr(encode=sign-input)",
    "lr(sigma={'variables': 0.3})",
    "es(sigma={'*': 0.3}, share=sample)",
]


def older(estimator, function, at, step, copies, streams):
    """What the engine of probes gives for the copies of a step."""
    problem = function.problem(at)
    _, layers = function_layers(function)
    draw, readout = estimator.assignment(layers)[layers[0].name]
    drawn = copies // 2 if draw.antithetic else copies
    chunk, within = divmod(step, chunk_length(drawn, function.dims))
    part = Part(chunk, range(within * drawn, (within + 1) * drawn), draw.antithetic)
    with problem.frozen():
        outcome = run(problem, draw, layers, [part], streams, "loop")
        block = BlockRead(Reading(problem, draw, layers, [readout], streams), copies)
        block.add(outcome, slice(0, copies))
        (found,) = block.read().directions
    return torch.cat([t.flatten() for t in found.values()]).double().numpy()


@pytest.mark.parametrize("spec", SPECS)
def test_directions_are_those_of_the_older_engine(spec, monkeypatch):
    monkeypatch.setattr("gradprobe.trajectory.sources.TILE", 48)  # short chunks: borders are crossed
    start, copies = (0.7, -1.3), 6
    function = find_function("beale")
    path = gp.descend(
        function, spec, start=start, steps=25, lr=1e-4, sigma=0.2, copies=copies, seeds=[3], root_seed=9
    )
    streams = Streams(9, 3, f"descent from {list(start)}")
    estimator = make(spec, {"sigma": 0.2}).estimator
    monkeypatch.setattr(f"{__name__}.chunk_length", lambda drawn, dims: 48 // (drawn * dims))
    for step in (0, 1, 3, 4, 5, 7, 8, 9, 24):
        at = path.position.values[0, 0, step]
        want = older(estimator, function, at.tolist(), step, copies, streams)
        got = path.direction.values[0, 0, step]
        assert np.linalg.norm(got - want) <= 1e-12 * (
            np.linalg.norm(want) + abs(function.values(torch.tensor(at)).item())
        )
        assert np.linalg.norm(want) > 0


def test_a_chunk_border_as_it_is():
    """2048 copies of two variables: eight steps share a key."""
    function = find_function("booth")
    path = gp.descend(function, "alr", steps=10, lr=1e-4, copies=2048, seeds=1)
    streams = Streams(0, 0, f"descent from {list(function.start)}")
    estimator = make("alr", {"sigma": 0.01}).estimator
    for step in (0, 7, 8, 9):
        at = path.position.values[0, 0, step].tolist()
        want = older(estimator, function, at, step, 2048, streams)
        np.testing.assert_allclose(path.direction.values[0, 0, step], want, rtol=1e-11)


# --- moments on a quadratic

A = np.array([[3.0, 1.0], [1.0, 0.5]])
B = np.array([0.4, -0.2])
X = np.array([0.6, -0.5])
G = A @ X - B


def quadratic(p):
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    return ((p @ a) * p).sum(-1) / 2 - p @ b


def one_copy(sigma, sign):
    """Mean and covariance of one copy's ``(f(x + s e) - f(x)) score`` by Gauss-Hermite on halves of each axis."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    nodes, weights = 6 * (nodes + 1), 6 * weights  # 0 to 12
    e = np.concatenate([-nodes, nodes])
    w = np.tile(weights, 2) * stats.norm.pdf(e)
    e = np.stack(np.meshgrid(e, e, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(w, w).ravel()
    rise = sigma * e @ G + sigma**2 / 2 * np.einsum("ki,ij,kj->k", e, A, e)
    each = rise[:, None] * (np.sign(e) if sign else e / sigma)
    mean = w @ each
    return mean, (each * w[:, None]).T @ each - np.outer(mean, mean)


def test_the_covariance_by_isserlis_is_that_by_quadrature():
    for sigma in (0.1, 0.7):
        t, t2 = np.trace(A), np.trace(A @ A)
        own = np.eye(2) * (t * t + 2 * t2) + 4 * t * A + 8 * A @ A
        both = G @ G * np.eye(2) + 2 * np.outer(G, G) + sigma**2 / 4 * own
        mean, covariance = one_copy(sigma, sign=False)
        np.testing.assert_allclose(mean, G, rtol=1e-10)
        np.testing.assert_allclose(covariance, both - np.outer(G, G), rtol=1e-9)
        mean, _ = one_copy(sigma, sign=True)
        np.testing.assert_allclose(mean, sigma * math.sqrt(2 / math.pi) * G, rtol=1e-10)


@pytest.mark.parametrize(("spec", "sign"), [("lr", False), ("alr", True)])
def test_mean_and_variance_of_one_step(spec, sign):
    """20,000 seeds: z of the mean along G and of the variance in each coordinate; false alarm 1e-6 each.

    Sees a fault of 5 % in the mean's length and of 12 % in a variance, with 99.9 % chance.
    """
    sigma, copies, seeds = 0.7, 32, 20_000
    path = gp.descend(quadratic, spec, start=X, steps=1, lr=1e-3, sigma=sigma, copies=copies, seeds=seeds)
    found = path.direction.values[0, :, 0]
    mean, covariance = one_copy(sigma, sign)
    limit, margin = stats.norm.isf(ALARM / 4), stats.norm.isf(1e-3)
    slope = found @ mean / (mean @ mean)
    error = math.sqrt(mean @ covariance @ mean / copies / seeds) / (mean @ mean)
    assert (limit + margin) * error < 0.05
    assert abs(slope.mean() - 1) < limit * error
    z = (found.mean(0) - mean) / np.sqrt(np.diag(covariance) / copies / seeds)
    assert np.abs(z).max() < limit
    for i in range(2):
        squares = (found[:, i] - mean[i]) ** 2 * copies / covariance[i, i]
        error = squares.std(ddof=1) / math.sqrt(seeds)
        assert (limit + margin) * error < 0.12
        assert abs(squares.mean() - 1) < limit * error


# --- many copies


def smoothed_gradient(p, sigma):
    """Of E[f(p + sigma e)] for the double well below, by Gauss-Hermite on f itself and central differences."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    e = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / (2 * math.pi)
    x, y = (p + sigma * e).T
    return np.array([w @ (4 * x**3 - 2 * x + y), w @ (x + 4 * y**3)])


def double_well(x, y):
    return x**4 - x**2 + x * y + y**4


def test_lr_follows_the_smoothed_function():
    """Mean path at 1,024 copies: z over 64 seeds, false alarm 1e-6; rms distance falls like 1/sqrt(copies).

    The path on the function that is not smoothed is more than 20 errors away.
    """
    start, sigma, steps, lr, seeds = (1.2, -0.9), 0.5, 60, 0.01, 64
    want, plain = [np.array(start)], [np.array(start)]
    for _ in range(steps):
        want.append(want[-1] - lr * smoothed_gradient(want[-1], sigma))
        plain.append(plain[-1] - lr * smoothed_gradient(plain[-1], 0.0))
    rms = {}
    for copies in (4, 64, 1024):
        path = gp.descend(
            double_well, "lr", start=start, steps=steps, lr=lr, sigma=sigma, copies=copies, seeds=seeds
        )
        away = path.position.values[0, :, -1] - want[-1]
        rms[copies] = float(np.sqrt((away**2).sum(1).mean()))
    error = away.std(0, ddof=1) / math.sqrt(seeds)
    # the path is curved by its own noise: a bias of order 1/copies, far below an error here
    assert np.abs(away.mean(0) / error).max() < stats.t.isf(ALARM / 4, seeds - 1)
    assert np.abs((plain[-1] - want[-1]) / error).max() > 20
    # an rms over 64 seeds of two coordinates has a relative error of about 9 %
    assert 2.5 < rms[64] / rms[1024] < 6.4
    assert 2.5 < rms[4] / rms[64] < 8.0
