"""Methods whose error comes back another way, against backward passes written by hand in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import intercept
from gradprobe.core.streams import Block
from gradprobe.estimators import direct_feedback
from gradprobe.estimators.base import Estimator, make
from gradprobe.problems.problem import Problem
from tests.problems_small import CATALOGUE
from tests.truth import by_hand
from tests.truth.checks import (
    SEED,
    MeanTest,
    assert_same,
    check_forwards,
    check_keys_decide,
    check_no_trace,
    collect,
    flat,
    known,
    layers_of,
    served,
)

MATRICES = ["fa", "fa(feedback_seed=3, scale=weights)", "sign-symmetric", "sign-symmetric(magnitudes=random)"]
MIRROR = ("fa(feedback=weights)", "bp")


def estimator_of(spec: str) -> Estimator:
    return make(spec).estimator


def directions(spec: str, problem: Problem) -> dict[str, np.ndarray]:
    found = estimator_of(spec).directions(problem, layers_of(problem), Block(0, 4), SEED)
    return {name: value.numpy() for name, value in found.items()}


def made(function) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return function().double()


def mlp() -> Problem:
    net = made(
        lambda: nn.Sequential(*[nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)])
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    return Problem(net, (x, torch.tensor([0, 2, 1, 1, 2, 0])), "cross_entropy")


def cnn() -> Problem:
    net = made(
        lambda: nn.Sequential(
            *[nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 2, stride=2), nn.ReLU()],
            *[nn.Flatten(), nn.Linear(8, 3)],
        )
    )
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64)
    return Problem(net, (x, torch.tensor([2, 0, 1, 1])), "cross_entropy")


def written_out(problem: Problem) -> tuple[list[by_hand.Layer], list[str]]:
    """The layers of a Sequential in NumPy, and their names."""
    layers, names = [], []
    for name, module in problem.module.named_children():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            values = module.weight.detach().numpy(), module.bias.detach().numpy()
            dense = isinstance(module, nn.Linear)
            layers.append(by_hand.Dense(*values) if dense else by_hand.Conv(*values, *geometry(module)))
            names.append(name)
    return layers, names


def geometry(module: nn.Conv2d) -> tuple[int, int]:
    return module.stride[0], int(module.padding[0])


def check_by_hand(spec: str, problem: Problem, way) -> None:
    """A method's directions are the hand-written ones; ``way`` is given the name of the layer besides."""
    layers, names = written_out(problem)
    relu = any(isinstance(m, nn.ReLU) for m in problem.module)
    x, classes = (t.numpy() for t in (problem.inputs, problem.target))
    want = by_hand.backward(layers, x, classes, lambda n, d, e: way(layers[n], names[n], d, e), relu)
    got = directions(spec, problem)
    for name, (weight, bias) in zip(names, want, strict=True):
        np.testing.assert_allclose(got[f"{name}.weight"], weight, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(got[f"{name}.bias"], bias, rtol=1e-12, atol=1e-15)


# --- the way back through other matrices


@pytest.mark.parametrize("problem_name", list(CATALOGUE))
def test_feedback_alignment_with_the_weights_is_backprop(problem_name: str) -> None:
    problem, layers = known(problem_name)
    one, other = (estimator_of(s).directions(problem, layers, Block(0, 4), SEED) for s in MIRROR)
    assert_same(one, other, 1e-12)


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("spec", MATRICES)
def test_the_error_comes_back_through_the_matrices_written_out_by_hand(build, spec: str) -> None:
    problem = build()
    weights = {name: p.numpy() for name, p in problem.parameters.items()}
    estimator = estimator_of(spec)

    def matrix(name: str) -> np.ndarray:
        return estimator.matrix(name, torch.tensor(weights[name])).numpy()

    check_by_hand(
        spec, problem, lambda layer, name, delta, error: layer.back(delta, matrix(f"{name}.weight"))
    )


def test_backprop_written_out_by_hand_is_backprop() -> None:
    """The hand-written passes themselves: torch's gradient."""
    for build in (mlp, cnn):
        check_by_hand("bp", build(), lambda layer, name, delta, error: layer.back(delta, layer.weight))


def rnn() -> Problem:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[1][0])

    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 3, 2), (4, 2)))
    return Problem(made(Net), (x, y), "mse")


PLACES = {
    "w": "rnn.weight_ih_l0",
    "u": "rnn.weight_hh_l0",
    "b": "rnn.bias_ih_l0",
    "c": "rnn.bias_hh_l0",
    "v": "head.weight",
    "d": "head.bias",
}


def check_rnn(spec: str, head, earlier) -> None:
    problem = rnn()
    weights = {short: problem.parameters[name].numpy() for short, name in PLACES.items()}
    x, y = problem.inputs.numpy(), problem.target.numpy()
    want, got = by_hand.plain_rnn(weights, x, y, head, earlier), directions(spec, problem)
    for short, name in PLACES.items():
        np.testing.assert_allclose(got[name], want[short], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("spec", MATRICES)
def test_the_same_matrix_serves_every_step_of_a_recurrent_layer(spec: str) -> None:
    values, matrix = rnn().parameters, estimator_of(spec).matrix
    u, v = (matrix(PLACES[k], values[PLACES[k]]).numpy() for k in "uv")
    check_rnn(spec, lambda error: error @ v, lambda delta, error: delta @ u)


# --- the matrices


def test_random_matrices_are_fixed_and_as_large_as_is_said() -> None:
    """Their root mean square, of 60,000 uniform numbers, is within 1 % (its standard error is 0.2 %)."""
    weight = torch.randn(200, 300, dtype=torch.float64)
    for spec, size in (
        ("fa", 1 / np.sqrt(3 * 300)),
        ("fa(scale=weights)", float(weight.square().mean().sqrt())),
    ):
        first = estimator_of(spec).matrix("a", weight)
        assert float(first.square().mean().sqrt()) == pytest.approx(size, rel=0.01)
        assert float(first.abs().max()) <= np.sqrt(3) * size
        assert abs(float(first.mean())) < 0.03 * size
    fa = estimator_of("fa")
    assert torch.equal(fa.matrix("a", weight), fa.matrix("a", 2 * weight))
    others = [fa.matrix("b", weight), estimator_of("fa(feedback_seed=1)").matrix("a", weight)]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1])) < 0.025


def test_sign_symmetric_matrices_have_the_signs_of_the_weights() -> None:
    weight = torch.randn(20, 30, dtype=torch.float64)
    weight[0, 0] = 0
    for spec in MATRICES[2:]:
        matrix = estimator_of(spec).matrix("a", weight)
        assert torch.equal(matrix.sign(), weight.sign())
    same = estimator_of("sign-symmetric(scale=weights)").matrix("a", weight).abs()
    assert len(same[same > 0].unique()) == 1
    assert float(same.max()) == pytest.approx(float(weight.square().mean().sqrt()))


def test_redrawn_magnitudes_are_those_of_each_copy() -> None:
    """Keys decide; a block is the mean of its copies; the forwards are counted; means over keys are as in the limit.

    M is uniform between 0 and sqrt(3) of its root mean square, so the layer before the last has the mean direction of
    constant magnitudes sqrt(3)/2 times as large. 64 blocks of 16, one look; false alarm 1e-6; it sees faults of 10 %.
    """
    problem = mlp()
    layers, estimator = layers_of(problem), estimator_of("sign-symmetric(magnitudes=redrawn)")
    assert estimator.stochastic
    check_keys_decide(estimator, problem, layers)
    check_forwards(estimator, problem, layers)
    check_no_trace(estimator, problem, layers)
    uniform = estimator_of("sign-symmetric").directions(problem, layers, Block(0, 1), SEED)
    expected = {n: uniform[n] * 3**0.5 / 2 for n in ("2.weight", "2.bias")}
    found = collect(estimator, problem, layers[1:2], 64, 16)
    MeanTest(found, flat(expected)).check(0.1)


@pytest.mark.parametrize("spec", ["fa(feedback=wights)", "fa(scale=big)", "sign-symmetric(magnitudes=fixed)"])
def test_unknown_values_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="unknown"):
        make(spec)


# --- the output's error straight to each layer


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("spec", ["dfa", "dfa(feedback_seed=3)"])
def test_direct_feedback_written_out_by_hand(build, spec: str) -> None:
    estimator, problem = estimator_of(spec), build()

    def way(layer, name, delta, error):
        matrix = estimator.matrix(f"{name}.weight", layer.back(delta, layer.weight)[0].size, error.shape[1])
        return error @ matrix.numpy().T

    check_by_hand(spec, problem, way)


def test_direct_feedback_reaches_every_step_of_a_recurrent_layer() -> None:
    """The error at the output is brought to the state before each step, by one matrix, and to the last state."""
    matrix = estimator_of("dfa").matrix
    u, v = (matrix(PLACES[k], 3, 2).numpy() for k in "uv")
    check_rnn("dfa", lambda error: error @ v.T, lambda delta, error: error @ u.T)


def test_a_residual_branch_adds_what_later_layers_get() -> None:
    """z = tanh(W1 x), y = W3 (z + tanh(W2 z)): z gets B2 e from its own layer and B3 e past it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(*s, bias=False) for s in ((2, 3), (3, 3), (3, 2)))

        def forward(self, x):
            z = torch.tanh(self.one(x))
            return self.three(z + torch.tanh(self.two(z)))

    x, y = np.linspace(-1, 1, 8).reshape(4, 2), np.linspace(0.3, -2, 8).reshape(4, 2)
    problem = Problem(made(Net), (torch.tensor(x), torch.tensor(y)), "mse")
    one, two, three = (problem.parameters[f"{name}.weight"].numpy() for name in ("one", "two", "three"))
    z = np.tanh(x @ one.T)
    t = np.tanh(z @ two.T)
    e = 2 * ((z + t) @ three.T - y) / y.size
    b2, b3 = (estimator_of("dfa").matrix(f"{name}.weight", 3, 2).numpy() for name in ("two", "three"))
    got = directions("dfa", problem)
    np.testing.assert_allclose(got["one.weight"], ((e @ (b2 + b3).T) * (1 - z**2)).T @ x, rtol=1e-12)
    np.testing.assert_allclose(got["two.weight"], ((e @ b3.T) * (1 - t**2)).T @ z, rtol=1e-12)
    np.testing.assert_allclose(got["three.weight"], e.T @ (z + t), rtol=1e-12)


def test_direct_feedback_matrices_are_fixed_and_drawn_in_any_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their root mean square, of 60,000 uniform numbers, is within 1 % (its standard error is 0.2 %)."""
    first = estimator_of("dfa").matrix("a", 300, 200)
    assert float(first.square().mean().sqrt()) == pytest.approx(1 / np.sqrt(3 * 200), rel=0.01)
    assert not torch.equal(first, estimator_of("dfa(feedback_seed=1)").matrix("a", 300, 200))
    monkeypatch.setattr(direct_feedback, "CHUNK", 1000)
    assert torch.equal(first, estimator_of("dfa").matrix("a", 300, 200))


def test_a_matrix_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = mlp()
    layers = layers_of(problem)
    monkeypatch.setattr(direct_feedback, "MOST", 12)
    refused = estimator_of("dfa").refusals(problem, layers)
    assert set(refused) == {"0"}
    assert refused["0"].startswith("a matrix from 3 outputs to the 5 values of a sample that arrive at '2'")


def test_layers_that_reach_the_loss_by_values_without_a_row_a_sample_are_refused() -> None:
    problem, layers = known("positional")  # `mix` sees B * T rows
    for spec in ("dfa", "hsic"):
        refused = estimator_of(spec).refusals(problem, layers)
        assert set(refused) == {"place"}
        assert refused["place"].endswith("what arrives at 'mix', which has no row for each sample")


UNWEIGHTED = [name for name in CATALOGUE if known(name)[0].separable and known(name)[0].batch_size > 1]


@pytest.mark.parametrize("problem_name", [name for name in UNWEIGHTED if not known(name)[0].has_weights])
@pytest.mark.parametrize("spec", ["fa", "dfa", "hsic"])
def test_the_order_of_the_samples_does_not_matter(problem_name: str, spec: str) -> None:
    """It would if rows of something else were taken for samples anywhere."""
    problem, layers = known(problem_name)
    estimator = estimator_of(spec)
    layers = served(estimator, problem, layers)
    batch = problem.rows.map(lambda t, axis: t.flip(axis), (problem.inputs, problem.target))
    turned = problem.with_batch(batch)
    one, other = (estimator.directions(p, layers, Block(0, 4), SEED) for p in (problem, turned))
    assert_same(one, other, 1e-8 if spec == "hsic" else 1e-11)


@pytest.mark.parametrize("spec", ["fa", "dfa"])
def test_learning_turns_the_weights_until_the_feedback_fits(spec: str) -> None:
    """Lillicrap et al. 2016, Fig. 1: a linear teacher, small weights; below 45 degrees once it has learned."""
    generator = torch.Generator().manual_seed(0)
    teacher, x, w1, w2 = (
        torch.randn(s, generator=generator) for s in ((10, 30), (100, 30), (20, 30), (10, 20))
    )
    net = nn.Sequential(nn.Linear(30, 20, bias=False), nn.Linear(20, 10, bias=False))
    problem = Problem(net, (x, x @ teacher.T / 30**0.5), "mse")
    layers, values = layers_of(problem), {"0.weight": 0.01 * w1, "1.weight": 0.01 * w2}
    cosines = []
    for _ in range(150):
        here = problem.at(values)
        got, gradient = (estimator_of(s).directions(here, layers, Block(0, 1), SEED) for s in (spec, "bp"))
        cosines.append(float(torch.cosine_similarity(*(g["0.weight"].flatten() for g in (got, gradient)), 0)))
        values = {name: value - got[name] for name, value in values.items()}
    assert abs(cosines[0]) < 0.4
    assert cosines[-1] > 0.5**0.5
    assert float(problem.at(values).clean_losses().mean()) < 0.01


# --- the HSIC bottleneck


def nhsic(u: np.ndarray, v: np.ndarray) -> float:
    """The formula, entry by entry: width 5, epsilon 1e-5."""
    size, factors = len(u), []
    for rows in (u.reshape(size, -1), v.reshape(size, -1)):
        kernel = np.zeros((size, size))
        for i, j in np.ndindex(kernel.shape):
            kernel[i, j] = np.exp(-sum((rows[i] - rows[j]) ** 2) / (2 * 5**2 * rows.shape[1]))
        centred = kernel @ (np.eye(size) - np.ones((size, size)) / size)
        factors.append(centred @ np.linalg.inv(centred + 1e-5 * size * np.eye(size)))
    return float(np.trace(factors[0] @ factors[1]))


@pytest.mark.parametrize("build", [mlp, cnn])
def test_hsic_is_its_formula_by_differences(build) -> None:
    """Central differences of the transcription at one layer's parameters, the layers before it as they are."""
    problem = build()
    layers, names = written_out(problem)
    relu = any(isinstance(m, nn.ReLU) for m in problem.module)
    got, x = directions("hsic", problem), problem.inputs.numpy()
    one_hot = np.eye(3)[problem.target.numpy()]
    exact, h = directions("bp", problem), x
    for layer, name in zip(layers[:-1], names, strict=False):
        for local in ("weight", "bias"):
            value = getattr(layer, local).copy()

            def objective(at: np.ndarray, layer=layer, local=local, h=h) -> float:
                setattr(layer, local, at)
                z = layer.forward(h)
                z = np.maximum(z, 0) if relu else np.tanh(z)
                return nhsic(z, x) - 50 * nhsic(z, one_hot)

            want = np.zeros_like(value)
            for at in np.ndindex(value.shape):
                step = np.zeros_like(value)
                step[at] = 1e-5
                want[at] = (objective(value + step) - objective(value - step)) / 2e-5
            objective(value)
            found = got[f"{name}.{local}"]
            assert np.linalg.norm(found - want) < 1e-5 * np.linalg.norm(want)
        z = layer.forward(h)
        h = np.maximum(z, 0) if relu else np.tanh(z)
    last = f"{names[-1]}.weight"
    np.testing.assert_allclose(got[last], exact[last], rtol=1e-12)


def test_hsic_needs_samples_to_compare_and_real_inputs() -> None:
    for name, layer, why in (
        ("embedding", "0", "not real numbers"),
        ("one-sample", "word", "a batch of one"),
    ):
        problem, layers = known(name)
        refused = estimator_of("hsic").refusals(problem, layers)
        assert why in refused[layer]
    with pytest.raises(UsageError, match="beta must be a positive number"):
        make("hsic(beta=0)")


# --- what it stands on


def test_hooks_of_the_user_are_part_of_what_is_differentiated() -> None:
    """One doubles a layer's input, another squares its output: with the weights it is backprop all the same."""
    net = made(lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)))
    net[2].register_forward_pre_hook(lambda module, args: (2 * args[0],))
    net[2].register_forward_hook(lambda module, args, output: output**2)
    x, y = torch.ones(3, 2).double().cumsum(0), torch.ones(3, 2).double()
    problem = Problem(net, (x, y), "mse")
    one, other = (directions(spec, problem) for spec in MIRROR)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-12)


def test_another_objective_is_differentiated_instead() -> None:
    problem = mlp()
    leaf = problem.parameters["4.bias"].clone().requires_grad_()

    def objective(seen):
        assert seen.inputs is problem.inputs
        assert seen.target is problem.target
        return 2 * seen.total + seen.losses.sum() + seen.output.sum()

    (got,) = problem.gradient({"4.bias": leaf}, [leaf], objective=objective)
    (gradient,) = problem.gradient({"4.bias": leaf}, [leaf])
    assert torch.allclose(got, 8 * gradient + 6, rtol=1e-12)  # losses.sum() is six times their mean


def test_arguments_of_a_call_can_be_replaced() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    x, seen = torch.randn(3, 2), []

    def enter(call):
        seen.append(call.args[0])
        return type(call)(call.layer, call.number, call.path, (torch.zeros(3, 2),), call.kwargs)

    with intercept(net, {"1": "last"}, lambda call, output: output + len(call.args), enter=enter) as calls:
        calls.restart()
        assert torch.equal(net(x), net[1].bias.expand(3, 1) + 1)
    assert torch.equal(seen[0], net[0](x))
    assert not torch.equal(net(x), net[1].bias.expand(3, 1) + 1)


# --- in runs


FLAT = ["fa", "sign-symmetric", "dfa", "hsic"]


def test_they_are_flat_lines_in_copies() -> None:
    ds = gp.probe(mlp(), [*FLAT, "lr"], copies=8, block=4, seeds=2)
    for name in FLAT:
        cosine = gp.stats.cosine(ds).sel(estimator=name).values
        assert np.ptp(cosine, axis=(1, 2)).max() == 0
    assert list(ds["stochastic"].values) == [False] * 4 + [True]
