"""The mean of every estimator is what it is declared to be.

Each test looks once, at a number of blocks that was fixed beforehand, with a false-alarm rate of 1e-6 (the
file as a whole: below 1e-4), and states the smallest fault of scale that it sees with 99.9 % chance. Numbers
of copies come from theory: a pair of antithetic copies of Gaussian noise on a quadratic has a slope of
variance 2 (shared noise) or about 2/B (own noise for each sample), so n pairs see a fault of 8.8 sqrt(2/n).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.tiles import unit_noise
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import make
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import read_block
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from tests.truth import naive
from tests.truth.checks import (
    SEED,
    MeanTest,
    assert_same,
    check_chain,
    check_recurrence,
    collect,
    flat,
    known,
    layers_of,
    linear_chain,
    smoothed_chain,
)

WHERE, SHARE = ("activations", "weights"), ("sample", "batch")
MEAN_SIZE = {"gaussian": math.sqrt(2 / math.pi), "laplace": math.sqrt(0.5), "rademacher": 1.0}
"""E|eps| at unit standard deviation: the length of a sign-encoded estimate, in units of sigma |gradient|."""


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


CHAIN = [  # where, injection, share, samples, copies a block, smallest fault that must be seen
    ("activations", "layerwise", "sample", 32, 1024, 0.05),
    ("activations", "layerwise", "batch", 32, 1024, 0.12),
    ("activations", "joint", "sample", 32, 1024, 0.05),
    ("activations", "joint", "batch", 32, 1024, 0.12),
    ("weights", "layerwise", "sample", 4, 64, 0.3),
    ("weights", "layerwise", "batch", 4, 128, 0.25),
    ("weights", "joint", "sample", 4, 64, 0.4),
    ("weights", "joint", "batch", 4, 256, 0.25),
]


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
@pytest.mark.parametrize(("where", "injection", "share", "samples", "copies", "sees"), CHAIN)
def test_smoothed_gradient_in_closed_form(where, injection, share, samples, copies, sees, noise):
    estimator = make(f"lr(where={where}, injection={injection}, share={share}, noise={noise})").estimator
    assert estimator.target == "smoothed"
    test = check_chain(where, injection, share, noise, samples, copies, sees)
    print(f"{estimator.draw}: sees {test.smallest:.3f}, slope {test.slope:.4f}")


def test_joint_smoothing_is_not_the_gradient():
    """Power of the closed-form test: the clean gradient is refused where smoothing changes it."""
    problem = linear_chain(32)
    layers = layers_of(problem)
    estimator = make("lr(injection=joint, antithetic=True, sigma=0.4)").estimator
    directions = collect(estimator, problem, layers, 64, 512)
    clean = flat(make("bp").estimator.directions(problem, layers, Block(0, 1), SEED))
    with pytest.raises(AssertionError):
        MeanTest(directions, clean).check(1.0)


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_fault_of_scale_of_five_percent_is_caught(factor):
    problem = linear_chain(32)
    layers = layers_of(problem)
    directions = collect(make("lr(antithetic=True, sigma=0.4)").estimator, problem, layers, 64, 1024)
    expected = smoothed_chain(problem, "activations", "layerwise", 0.4)
    with pytest.raises(AssertionError, match="slope|coordinate"):
        MeanTest(factor * directions, expected).check(0.05)


def test_scale_of_es_without_noise():
    """One weight, one sample, signs in pairs: (L+ - L-)/2 sigma is the derivative of a quadratic, exactly."""
    module = nn.Linear(1, 1, bias=False).double()
    problem = Problem(module, (torch.tensor([[1.5]]).double(), torch.tensor([[0.2]]).double()), "mse")
    layers = layers_of(problem)
    want = make("bp").estimator.directions(problem, layers, Block(0, 1), SEED)
    for where, share in itertools.product(WHERE, SHARE):
        spec = f"lr(where={where}, share={share}, noise=rademacher, antithetic=True, sigma=0.3)"
        got = make(spec).estimator.directions(problem, layers, Block(0, 2), SEED)
        assert_same(got, want, 1e-12, spec)


# --- reused layers


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
@pytest.mark.parametrize("injection", ["layerwise", "joint"])
def test_layer_called_three_times(injection, noise):
    check_recurrence(injection, noise)


# --- losses that are not quadratic: against backprop under noise of our own


class Net:
    """A two-layer tanh network, or a recurrent one, written out; noise is an argument."""

    def __init__(self, recurrent: bool, seed: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.recurrent = recurrent
        self.values = {
            "first.weight": normal(2, 3),
            "first.bias": normal(2),
            "second.weight": normal(2, 2),
            "second.bias": normal(2),
        }
        self.x, self.y = normal(8, 2 if recurrent else 3), normal(8, 2)

    def problem(self) -> Problem:
        recurrent = self.recurrent

        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)

            def forward(self, x):
                if not recurrent:
                    return self.second(torch.tanh(self.first(x)))
                h = x.new_zeros(len(x), 2)
                for t in range(2):
                    h = torch.tanh(self.first(torch.cat([x[:, t : t + 1], h], 1)))
                return self.second(h)

        module = Module().double()
        module.load_state_dict(self.values)
        return Problem(module, (self.x, self.y), "mse")

    def loss(self, values, sites):
        """Mean loss of N copies; ``values`` ``[N, *param]``, ``sites``: noise of each call ``[N, B, 2]``."""

        def linear(name, x, noise):
            return x @ values[f"{name}.weight"].mT + values[f"{name}.bias"][:, None] + noise

        copies = len(values["first.bias"])
        if self.recurrent:
            h = torch.zeros(copies, 8, 2, dtype=torch.float64)
            for t in range(2):
                step = self.x[:, t : t + 1].expand(copies, 8, 1)
                h = torch.tanh(linear("first", torch.cat([step, h], 2), sites["first", t]))
        else:
            h = torch.tanh(linear("first", self.x.expand(copies, 8, 3), sites["first", 0]))
        return ((linear("second", h, sites["second", 0]) - self.y) ** 2).mean()

    def pathwise(self, draw: Draw, noisy: tuple[str, ...], blocks: int, copies: int) -> torch.Tensor:
        """Block means ``[K, D]`` of the backprop gradient under noise from a generator of our own."""
        rng = np.random.default_rng(77)

        def noise(on, *shape):
            if not on:
                return torch.zeros(copies, *shape, dtype=torch.float64)
            size = rng.laplace(0, math.sqrt(0.5), (copies, *shape))
            size = size if draw.noise == "laplace" else rng.standard_normal((copies, *shape))
            return draw.sigma * torch.from_numpy(size)

        found = []
        for _ in range(blocks):
            leaves = {n: v.clone().requires_grad_() for n, v in self.values.items()}
            active = draw.where == "activations"
            rows = 1 if draw.share == "batch" else 8
            sites = {
                (name, call): noise(active and name in noisy, rows, 2).expand(copies, 8, 2)
                for name, call in [("first", 0), ("first", 1), ("second", 0)]
            }
            values = {
                n: v + noise(not active and n.split(".")[0] in noisy, *v.shape) for n, v in leaves.items()
            }
            gradient = torch.autograd.grad(self.loss(values, sites), list(leaves.values()))
            own = [g for n, g in zip(leaves, gradient, strict=True) if n.split(".")[0] in noisy]
            found.append(torch.cat([g.flatten() for g in own]))
        return torch.stack(found)


PATHWISE = [  # recurrent, where, injection, noise, share, copies a block, fault that must be seen
    (False, "activations", "layerwise", "gaussian", "sample", 1024, 0.1),
    (False, "activations", "layerwise", "laplace", "batch", 1024, 0.2),
    (False, "activations", "joint", "gaussian", "batch", 1024, 0.2),
    (False, "activations", "joint", "laplace", "sample", 512, 0.1),
    (False, "weights", "layerwise", "gaussian", "batch", 128, 0.4),
    (False, "weights", "joint", "laplace", "batch", 256, 0.4),
    (True, "activations", "layerwise", "gaussian", "sample", 768, 0.1),
    (True, "activations", "joint", "laplace", "sample", 512, 0.15),
    (True, "weights", "layerwise", "laplace", "batch", 128, 0.4),
]


@pytest.mark.parametrize(("recurrent", "where", "injection", "noise", "share", "copies", "sees"), PATHWISE)
def test_smoothed_gradient_by_backprop(recurrent, where, injection, noise, share, copies, sees):
    """Two independent samples: the estimator's blocks, and backprop under noise drawn here."""
    net = Net(recurrent)
    problem = net.problem()
    layers = layers_of(problem)
    draw = Draw(where, injection, noise, True, share, 0.6)
    spec = f"lr(where={where}, injection={injection}, noise={noise}, share={share})"
    estimator = make(spec, {"antithetic": True, "sigma": 0.6}).estimator
    for unit in [layers] if injection == "joint" else [[x] for x in layers]:
        reference = net.pathwise(draw, tuple(x.name for x in unit), 64, 2048)
        directions = collect(estimator, problem, unit, 64, copies)
        # the reference's own noise is added to the estimate's: the difference of two means
        expected = reference.mean(0)
        test = MeanTest(directions - (reference - expected), expected)
        print(f"{spec} {unit[0].name}: sees {test.smallest:.3f}, slope {test.slope:.4f}")
        test.check(sees)


# --- sign-encoded read-outs


@pytest.mark.parametrize("noise", list(MEAN_SIZE))
@pytest.mark.parametrize("spec", ["aes", "lr(encode=sign-noise)"])
def test_sign_of_the_noise_keeps_the_direction(spec, noise):
    """On a quadratic in pairs: E[sign(eps) (L+ - L-)/2] = sigma E|eps| dL; Gaussian: sigma sqrt(2/pi)."""
    aes = spec == "aes"
    problem = linear_chain(4 if aes else 32)
    layers = layers_of(problem)
    estimator = make(spec, {"noise": noise, "antithetic": True, "sigma": 0.3}).estimator
    assert estimator.target == "surrogate"
    gradient = flat(make("bp").estimator.directions(problem, layers, Block(0, 1), SEED))
    directions = collect(estimator, problem, layers, 64, 128 if aes else 512)
    MeanTest(directions, 0.3 * MEAN_SIZE[noise] * gradient).check(0.3 if aes else 0.05)


def test_aes_at_small_sigma_on_a_bent_loss():
    """To first order in sigma the mean is sigma sqrt(2/pi) times the gradient, whatever the loss."""
    problem = Net(recurrent=False).problem()
    layers = layers_of(problem)
    estimator = make("aes(antithetic=True, sigma=0.001)").estimator
    gradient = flat(make("bp").estimator.directions(problem, layers, Block(0, 1), SEED))
    test = MeanTest(collect(estimator, problem, layers, 64, 128), 0.001 * MEAN_SIZE["gaussian"] * gradient)
    test.check(0.3)


def signed_chain(problem: Problem, encode: str, joint: bool, sigma: float) -> torch.Tensor:
    """Mean of the sign read-outs on the linear chain under Gaussian noise, from its closed form.

    In pairs, and with the loss quadratic in each layer's own noise, E[L sign(e_o) | input] is ``sigma
    sqrt(2/pi)`` times ``dL/dv_o``; E[L e_o/sigma] is ``dL/dv_o``. The second layer's input is ``h + sigma e``
    under joint noise: then E[h'_j sign(h'_i)] is ``h_j erf(h_i/(sigma sqrt 2))`` plus, for i = j, the normal
    density's ``2 sigma phi(h_i/sigma)``.
    """
    p = problem.parameters
    x, y = problem.inputs, problem.target
    h = x @ p["0.weight"].T + p["0.bias"]
    slope_out = h @ p["1.weight"].T + p["1.bias"] - y  # dL/dv2 of the mean over two outputs
    slope_hidden = slope_out @ p["1.weight"]
    factor = sigma * math.sqrt(2 / math.pi) if encode == "sign" else 1.0
    n = len(x)
    first = [slope_hidden.T @ torch.sign(x) / n, slope_hidden.mean(0)]
    if joint:
        tail = torch.erf(h / (sigma * math.sqrt(2)))
        bump = 2 * sigma * torch.exp(-(h**2) / (2 * sigma**2)) / math.sqrt(2 * math.pi)
        second = slope_out.T @ tail / n + p["1.weight"] * bump.mean(0)
    else:
        second = slope_out.T @ torch.sign(h) / n
    return factor * torch.cat([t.flatten() for t in [*first, second, slope_out.mean(0)]])


@pytest.mark.parametrize("injection", ["layerwise", "joint"])
@pytest.mark.parametrize("encode", ["sign", "sign-input"])
def test_alr_has_the_mean_of_its_formula(encode, injection):
    problem = linear_chain(32)
    layers = layers_of(problem)
    spec = f"alr(encode={encode}, injection={injection}, antithetic=True, sigma=0.5)"
    expected = signed_chain(problem, encode, injection == "joint", 0.5)
    test = MeanTest(collect(make(spec).estimator, problem, layers, 64, 512), expected)
    test.check(0.05)
    clean = signed_chain(problem, encode, False, 0.5)
    if injection == "joint":  # the sign of the clean input would be seen
        assert (clean - expected).norm() / expected.norm() > 2 * test.smallest


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_alr_by_quadrature(noise):
    """One output behind a tanh at a sigma where the loss is far from quadratic: E[L(v + s e) sign e]."""
    module = seeded(lambda: nn.Sequential(nn.Linear(2, 1), nn.Tanh()).double())
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(2)).double()
    y = torch.linspace(-1, 1, 16).double()[:, None]
    problem = Problem(module, (x, y), "mse")
    layers = layers_of(problem)
    density = stats.norm.pdf if noise == "gaussian" else stats.laplace(scale=math.sqrt(0.5)).pdf
    v = module[0](x).detach()[:, 0]
    sigma, odd = 1.5, []
    for b in range(16):

        def half(e, at=float(v[b]), target=float(y[b])):
            losses = [(math.tanh(at + s * sigma * e) - target) ** 2 for s in (1, -1)]
            return density(e) * (losses[0] - losses[1])

        odd.append(integrate.quad(half, 0, 12)[0])
    odd = torch.tensor(odd).double()
    expected = torch.cat([(odd[:, None] * torch.sign(x)).mean(0), odd.mean()[None]])
    estimator = make(f"alr(noise={noise}, sigma={sigma})").estimator
    MeanTest(collect(estimator, problem, layers, 64, 1024), expected).check(0.05)


# --- signs as noise: every pattern counted


def enumerated(problem: Problem, draw: Draw, layers) -> torch.Tensor:
    """Expectation of ``(L - c) eps/sigma`` over all sign patterns, pulled back by the exact Jacobian."""
    clean = naive.run(problem)[0]
    weights = problem.weights
    total = []
    for layer in layers:
        if draw.where == "weights":
            size = sum(math.prod(s) for s in layer.shapes)
            mean = torch.zeros(size, dtype=torch.float64)
            for signs in itertools.product((-1.0, 1.0), repeat=size):
                eps = torch.tensor(signs, dtype=torch.float64)
                parts = eps.split([math.prod(s) for s in layer.shapes])
                shift = {
                    n: draw.sigma * e.reshape(s)
                    for n, e, s in zip(layer.parameters, parts, layer.shapes, strict=True)
                }
                losses = naive.run(problem, weights=shift)[0]
                mean += (weights * (losses - clean)).sum() * eps / draw.sigma / 2**size
            total.append(mean)
        else:
            jacobian = naive.Jacobians(problem)
            calls = naive.run(problem, [layer])[1]
            exact = jacobian.of(layer, (layer.name, 0), calls[layer.name, 0])
            width = layer.outputs[0][1]
            cotangent = torch.zeros(layer.outputs[0], dtype=torch.float64)
            for signs in itertools.product((-1.0, 1.0), repeat=width):  # one for all samples will do
                eps = torch.tensor(signs, dtype=torch.float64).expand(layer.outputs[0])
                losses = naive.run(problem, [layer], {(layer.name, 0): draw.sigma * eps})[0]
                cotangent += (weights * (losses - clean))[:, None] * eps / draw.sigma / 2**width
            total += [torch.tensordot(cotangent, exact[n], dims=2).flatten() for n in layer.parameters]
    return torch.cat(total)


@pytest.mark.parametrize(("where", "share"), list(itertools.product(WHERE, SHARE)))
def test_rademacher_is_the_mean_over_all_patterns(where, share):
    problem = Net(recurrent=False).problem()
    layers = layers_of(problem)[1:] if where == "weights" else layers_of(problem)
    draw = Draw(where, "layerwise", "rademacher", share=share, sigma=0.8)
    spec = f"lr(where={where}, share={share}, noise=rademacher, antithetic=True, sigma=0.8)"
    estimator = make(spec).estimator
    assert estimator.target == "surrogate"
    copies = 48 if (where, share) == ("weights", "sample") else 128
    expected = enumerated(problem, draw, layers)
    MeanTest(collect(estimator, problem, layers, 64, copies), expected).check(0.3)


def test_rademacher_is_exact_on_a_quadratic():
    """The central difference in each coordinate is the gradient there."""
    problem, layers = known("linear")
    for where in ("activations", "weights"):
        draw = Draw(where, "layerwise", "rademacher", share="batch", sigma=0.8)
        gradient = flat(make("bp").estimator.directions(problem, layers, Block(0, 1), SEED))
        torch.testing.assert_close(enumerated(problem, draw, layers), gradient, rtol=1e-12, atol=1e-12)


# --- estimators that share draws


HYBRIDS = [name for name in ESTIMATORS.names() if hasattr(ESTIMATORS.get(name), "es_layers")]


@pytest.mark.parametrize("injection", ["layerwise", "joint"])
@pytest.mark.parametrize("problem_name", ["mlp", "cnn", "batch-norm"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrid_is_es_below_and_lr_above_bitwise(name, problem_name, injection):
    problem, layers = known(problem_name)
    estimator = make(name, {"injection": injection, "sigma": 0.1}).estimator
    block = Block(2, 4)
    whole = estimator.directions(problem, layers, block, SEED)
    es, lr = estimator.parts
    matrices = [x for x in layers if any(len(s) > 1 for s in x.shapes)]
    first = matrices[:2]
    rest = [x for x in layers if x not in first]
    parts = es.directions(problem, first, block, SEED) | lr.directions(problem, rest, block, SEED)
    assert set(parts) == set(whole)
    assert all(torch.equal(parts[n], whole[n]) for n in whole)


@pytest.mark.parametrize(("one", "other"), [("lr", "alr"), ("es", "aes")])
def test_read_together_or_alone_is_the_same_bitwise(one, other):
    problem, layers = known("cnn")
    a, b = make(one).estimator, make(other).estimator
    assert a.draw == b.draw
    block = Block(1, 6)
    for layer in layers:
        both = read_block(Reading(problem, a.draw, [layer], [a.readout, b.readout], SEED), block).directions
        for estimator, together in zip((a, b), both, strict=True):
            alone = estimator.directions(problem, [layer], block, SEED)
            assert all(torch.equal(alone[n], together[n]) for n in alone)


def test_alr_uses_the_noise_of_lr():
    """One output, one sample, one copy: LR / ALR = |eps| |x| / sigma, for the eps of LR's stream."""
    module = seeded(lambda: nn.Linear(1, 1).double())
    problem = Problem(module, (torch.full((1, 1), -1.7).double(), torch.zeros(1, 1).double()), "mse")
    layers = layers_of(problem)
    streams, block = Streams(3, 9), Block(4, 1)
    key = streams.key("gaussian", "activations", layers[0].name, 0, 4)
    eps = float(unit_noise(Gaussian(), key, (1, 1), range(1)))
    lr = make("lr(sigma=0.2)").estimator.directions(problem, layers, block, streams)
    alr = make("alr(sigma=0.2)").estimator.directions(problem, layers, block, streams)
    assert float(lr["weight"] / alr["weight"]) == pytest.approx(
        abs(eps) * float(abs(problem.inputs)) / 0.2, rel=1e-9
    )
    assert float(lr["bias"] / alr["bias"]) == pytest.approx(abs(eps) / 0.2, rel=1e-9)
    assert ReadOut(encode="sign") == make("alr").estimator.readout
