"""Every draw and read-out equals the naive loop, by every engine, on every kind of layer, to rounding."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import tensors
from gradprobe.core.streams import Block
from gradprobe.engine.draw import Draw
from gradprobe.engine.pathwise import pathwise
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import make
from gradprobe.estimators.centres import CENTRES
from gradprobe.problems.problem import Problem
from tests.problems_small import CATALOGUE, Lambda, build
from tests.truth import naive
from tests.truth.checks import SEED, assert_same, check_draw, known, layers_of, served
from tests.truth.trace import global_state, module_state, snapshot

COPY_LOSS = {"scalar-loss", "train-batch-norm", "forced-copy-loss", "stateful"}
SPREAD = {"*": 0.3, "0": 0.2}

ALL = [
    Draw(*options, sigma=SPREAD)
    for options in itertools.product(
        ("activations", "weights"),
        ("layerwise", "joint"),
        ("gaussian", "laplace", "rademacher"),
        (False, True),
        ("sample", "batch"),
    )
]
# Every pair of option values occurs among these for each place of the noise (orthogonal up to noise).
COVERING = [
    Draw(where, *rest, sigma=0.3)
    for where in ("activations", "weights")
    for rest in (
        ("layerwise", "gaussian", False, "sample"),
        ("joint", "gaussian", True, "batch"),
        ("layerwise", "laplace", True, "batch"),
        ("joint", "laplace", False, "sample"),
        ("layerwise", "rademacher", False, "batch"),
        ("joint", "rademacher", True, "sample"),
    )
]


def test_covering_draws_hold_every_pair():
    options = [(d.where, d.injection, d.noise, d.antithetic, d.share) for d in COVERING]
    for one, other in itertools.combinations(range(5), 2):
        values = [sorted({str(o[i]) for o in options}) for i in (one, other)]
        assert {(str(o[one]), str(o[other])) for o in options} == set(itertools.product(*values))


@pytest.mark.parametrize("draw", ALL, ids=str)
@pytest.mark.parametrize("name", ["mlp"])
def test_full_product_of_options(name, draw):
    problem, layers = known(name)
    assert check_draw(problem, draw, layers, copies=6) > 0


@pytest.mark.parametrize("draw", COVERING, ids=str)
@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_layer_type(name, draw):
    problem, layers = known(name)
    compared = check_draw(problem, draw, layers)
    if name not in COPY_LOSS:
        assert compared > 0


@pytest.mark.parametrize("draw", COVERING[:2] + COVERING[6:7], ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn", "recurrent", "layer-norm", "embedding"])
def test_float32(name, draw):
    """rtol: losses of size 1 round to 6e-8, 1/sigma makes 2e-7 of it, a few hundred terms 1e-5 at worst."""
    problem, layers = known(name, torch.float32)
    assert check_draw(problem, draw, layers, rtol=2e-5) > 0


@pytest.mark.parametrize("name", list(CATALOGUE))
@pytest.mark.parametrize("spec", ESTIMATORS.names())
def test_presets_through_the_contract(spec, name):
    """Every registered estimator that is a read-out of draws, by its public name."""
    problem, layers = known(name)
    estimator = make(spec, {"sigma": 0.1}).estimator
    mine = served(estimator, problem, layers)
    if not mine or estimator.assignment(mine) is None:
        return
    block = Block(1, 4)
    got = estimator.directions(problem, mine, block, SEED)
    assert_same(got, naive.directions(estimator, problem, mine, block, SEED), 1e-9)


@pytest.mark.parametrize("draw", COVERING, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "cnn",
        "weighted",
        "scalar-loss",
        "recurrent",
        "tied",
        "lstm",
        "attention",
        "repeated-module",
    ],
)
def test_smoothed_reference(name, draw):
    """The pathwise gradient, copy by copy."""
    problem, layers = known(name)
    estimator = make(
        f"lr(where={draw.where}, injection={draw.injection}, share={draw.share}, sigma=0.3)"
    ).estimator
    mine = served(estimator, problem, layers)
    for unit in [mine] if draw.injection == "joint" else [[x] for x in mine]:
        if unit:
            got = pathwise(problem, draw, unit, Block(2, 4), SEED)
            assert_same(got, naive.pathwise(problem, draw, unit, Block(2, 4), SEED), 1e-9)


def test_checkpointing_has_no_smoothed_reference():
    """A checkpointed model runs again during backward, when calls can no longer be told apart."""
    problem, layers = known("checkpointed")
    inner = [x for x in layers if x.name == "second"]
    with pytest.raises(UsageError, match="switch checkpointing off"):
        pathwise(problem, Draw(sigma=0.3), inner, Block(0, 2), SEED)
    weights = Draw("weights", share="batch", sigma=0.3)
    got = pathwise(problem, weights, inner, Block(0, 2), SEED)
    assert_same(got, naive.pathwise(problem, weights, inner, Block(0, 2), SEED), 1e-9)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_bp_is_the_gradient(name):
    """Backprop by the plainest means: ``loss.backward()`` on a copy of the user's module."""
    problem, layers = known(name)
    block = Block(0, 1)
    got = make("bp").estimator.directions(problem, layers, block, SEED)
    silent = Draw("weights", "joint", share="batch", sigma=1e-300)
    assert_same(got, naive.pathwise(problem, silent, layers, block, SEED), 1e-9)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_catalogue_is_what_it_says(name):
    """Which loss, which weights: the naive loop takes both from the problem, so they are checked here."""
    problem, _ = known(name)
    assert problem.loss_per == ("copy" if name in COPY_LOSS else "sample")
    clean = naive.run(problem)[0]
    torch.testing.assert_close(problem.clean_losses(), clean, rtol=1e-12, atol=1e-12)
    given = {"weighted": [0.5, 0.0, 1.25, 2.0], "forced-copy-loss": [0.5, 0.0, 1.25]}
    if name in given:
        assert problem.weights.tolist() == given[name]
    elif problem.weights is not None:
        assert problem.weights.tolist() == [1 / problem.batch_size] * problem.batch_size


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_making_a_problem_leaves_no_trace(name):
    module, batch, loss, *options = CATALOGUE[name]()
    before = module_state(module), global_state(), [t.clone() for t in tensors(batch)]
    problem = Problem(module, batch, loss, **(options[0] if options else {}))
    problem.clean_losses()
    problem.fingerprints()
    assert (module_state(module), global_state()) == before[:2]
    assert all(torch.equal(t, old) for t, old in zip(tensors(batch), before[2], strict=True))


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_finding_layers_leaves_no_trace(name):
    problem = build(name)
    before = snapshot(problem)
    layers = layers_of(problem)
    for spec in ESTIMATORS.names():
        make(spec).estimator.refusals(problem, layers)
    assert snapshot(problem) == before


EXPECTED_LAYERS = {  # name -> calls, takes activation noise, credited with
    "linear": {"(root)": (1, True, "sample")},
    "recurrent": {"cell": (3, True, "sample"), "head": (1, True, "sample")},
    "repeated-module": {"0": (2, True, "sample"), "4": (1, True, "sample")},
    "tied": {"up = down": (2, True, "sample"), "head": (1, True, "sample")},
    "lstm": {"rnn.l0": (3, True, "sample"), "head": (1, True, "sample")},
    "lstm-outputs": {"rnn.l0": (3, True, "sample"), "head": (1, True, "sample")},
    "gru": {"rnn.l0": (2, True, "sample"), "head": (1, True, "sample")},
    "packed-rnn": dict.fromkeys(("rnn.l0", "rnn.l0_reverse"), (2, True, "sample")),
    "cells": {"lower.gates": (2, True, "sample"), "upper.gates": (2, True, "sample")},
    "fused-rnn": {"rnn": (1, False, "sample"), "head": (1, True, "sample")},
    "attention": {"attend": (1, True, "sample"), "head": (1, True, "sample")},
    "functional-weight": {
        "fc": (1, False, "sample"),
        "only": (0, False, "sample"),
        "head": (1, True, "sample"),
    },
    "positional": {"place": (1, True, "copy"), "mix": (1, True, "copy"), "head": (1, True, "sample")},
    "scalar-loss": {"0": (1, True, "copy"), "2": (1, True, "copy")},
    "train-batch-norm": {"0": (1, True, "copy"), "1": (1, True, "copy"), "3": (1, True, "copy")},
    "time-major": {"first": (1, True, "sample"), "second": (1, True, "sample")},
    "square-time-major": {"first": (1, True, "sample"), "second": (1, True, "sample")},
    "rich-outputs": {"inner": (1, True, "sample"), "head": (1, True, "sample")},
    "stateful": {"first": (1, True, "copy"), "second": (1, True, "copy")},
    "never-runs": {"used": (1, True, "sample"), "head": (1, True, "sample")},
}


@pytest.mark.parametrize("name", list(EXPECTED_LAYERS))
def test_layers_are_found(name):
    """The naive loop trusts the layer record; what it should say is written here by hand."""
    _, layers = known(name)
    found = {x.name: (x.calls, x.activations, x.credit) for x in layers}
    assert found == EXPECTED_LAYERS[name]


@pytest.mark.parametrize(("name", "axis"), [("mlp", 0), ("time-major", 1), ("square-time-major", 1)])
def test_the_axis_of_the_samples_is_found(name, axis):
    problem, layers = known(name)
    assert (problem.batch_axis, [x.axis for x in layers]) == (axis, [axis] * len(layers))


# --- copies whose loss is not finite


def overflowing(limit: float, size=torch.Tensor.clone) -> Problem:
    """The second layer's input is infinite where (the size of) the first layer's output passes ``limit``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        cut = Lambda(lambda x: torch.where(size(x) > limit, math.inf, x))
        net = nn.Sequential(nn.Linear(2, 2), cut, nn.Linear(2, 2)).double()
        return Problem(net, (0.1 * torch.randn(3, 2).double(), torch.randn(3, 2).double()), "mse")


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("injection", ["layerwise", "joint"])
@pytest.mark.parametrize("where", ["activations", "weights"])
def test_copies_with_infinite_losses_count_as_zero(where, injection, antithetic):
    problem = overflowing(0.6)
    layers = layers_of(problem)
    draw = Draw(where, injection, antithetic=antithetic, share="batch", sigma=0.7)
    lost = []
    for k in range(8):
        noise = naive.all_noise(problem, draw, layers, Block(3, 8), SEED)
        if where == "activations":
            shift = {s: 0.7 * e[k].double() for s, e in noise.items()}
            lost.append(not naive.run(problem, layers, shift)[0].isfinite().all())
    assert where == "weights" or 0 < sum(lost) < 7
    assert check_draw(problem, draw, layers, copies=8) > 0


@pytest.mark.parametrize("centre", CENTRES.names())
@pytest.mark.parametrize("spec", ["lr", "alr", "es", "lr(injection=joint)"])
def test_nothing_finite_gives_zero(spec, centre):
    """At a sigma of 1e6 no copy has an output below the limit of 1."""
    problem = overflowing(1.0, torch.abs)
    layers = layers_of(problem)
    estimator = make(spec, {"sigma": 1e6, "centre": centre}).estimator
    got = estimator.directions(problem, layers[:1], Block(0, 8), SEED)
    assert all(bool((v == 0).all()) for v in got.values())
