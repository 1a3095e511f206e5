"""The contract of every estimator, on every small problem: generated from the registry and the catalogue.

Nothing here knows an estimator or a problem by name; declared traits (``stochastic``, ``uses_backward``,
``target``, ``assignment``) say which promises apply.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from torch import nn

from gradprobe.core.streams import Block
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import Estimator, make
from gradprobe.estimators.blockread import Reading
from gradprobe.estimators.draws import noisy_together, read_block
from gradprobe.problems.problem import Problem
from tests.problems_small import CATALOGUE, Lambda, build
from tests.truth import naive
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
    same_bits,
    served,
)
from tests.truth.trace import Boom, Raising, snapshot

COPIES = 4
NAMES = ESTIMATORS.names()
EVERY = pytest.mark.parametrize("problem_name", list(CATALOGUE))
pytestmark = pytest.mark.parametrize("name", NAMES)


def estimator_of(name: str) -> Estimator:
    return make(name, {"sigma": 0.1}).estimator


def setting(name: str, problem_name: str, dtype: torch.dtype = torch.float64):
    """Estimator, problem and the layers it serves."""
    estimator = estimator_of(name)
    problem, layers = known(problem_name, dtype)
    return estimator, problem, served(estimator, problem, layers)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_names_shapes_dtype_and_device_match_the_parameters(name, problem_name, dtype):
    estimator, problem, layers = setting(name, problem_name, dtype)
    found = estimator.directions(problem, layers, Block(0, COPIES), SEED)
    wanted = {n: s for layer in layers for n, s in zip(layer.parameters, layer.shapes, strict=True)}
    assert set(found) == set(wanted)
    for n, shape in wanted.items():
        assert found[n].shape == shape
        assert found[n].device == problem.device
        assert found[n].layout == torch.strided
        if n in problem.parameters:
            assert shape == problem.parameters[n].shape
        assert torch.promote_types(found[n].dtype, dtype) == found[n].dtype
        assert not found[n].requires_grad
        assert bool(found[n].isfinite().all())


@EVERY
def test_key_decides_the_noise(name, problem_name):
    estimator, problem, layers = setting(name, problem_name)
    if layers:
        check_keys_decide(estimator, problem, layers, COPIES)


@EVERY
def test_leaves_no_trace(name, problem_name):
    estimator = estimator_of(name)
    problem = build(problem_name)
    for p in problem.module.parameters():
        p.grad = torch.full_like(p, 7.0)
    layers = served(estimator, problem, layers_of(problem))
    check_no_trace(estimator, problem, layers, COPIES)


@pytest.mark.parametrize(
    ("problem_name", "at"), [(x, 3) for x in CATALOGUE] + [(x, 1) for x in ("mlp", "recurrent", "max-norm")]
)
def test_leaves_no_trace_when_the_loss_raises(name, problem_name, at):
    estimator = estimator_of(name)
    loss = Raising()
    problem = build(problem_name, wrap=loss.wrap)
    layers = served(estimator, problem, layers_of(problem))
    before = snapshot(problem)
    loss.arm(at)
    try:
        estimator.directions(problem, layers, Block(0, COPIES), SEED)
        raised = False
    except Boom:
        raised = True
    loss.disarm()
    if at == 3 and layers and estimator.assignment(layers) is not None:
        assert raised
    assert snapshot(problem) == before
    fresh = build(problem_name, wrap=Raising().wrap)
    first = estimator.directions(problem, layers, Block(0, COPIES), SEED)
    # to rounding: what failed may have moved the choice of the engine
    assert_same(first, estimator.directions(fresh, layers, Block(0, COPIES), SEED), 1e-9)


@EVERY
def test_engines_agree(name, problem_name):
    estimator, problem, layers = setting(name, problem_name)
    assigned = estimator.assignment(layers)
    for draw, unit in noisy_together(assigned or {}, layers):
        readouts = list(dict.fromkeys(assigned[x.name][1] for x in unit))
        reading = Reading(problem, draw, unit, readouts, SEED)
        auto = read_block(reading, Block(3, COPIES)).directions
        loop = read_block(reading, Block(3, COPIES), "loop").directions
        for one, other in zip(auto, loop, strict=True):
            assert_same(one, other, 1e-9)


@EVERY
def test_declared_forwards_are_counted_forwards(name, problem_name):
    check_forwards(*setting(name, problem_name), COPIES)


@pytest.mark.parametrize("problem_name", ["mlp", "cnn", "recurrent", "scalar-loss", "positional"])
def test_declared_forwards_under_every_option(name, problem_name):
    """Each draw costs what it declares, also where each sample has weights of its own."""
    estimator = estimator_of(name)
    choices = {"where": ("activations", "weights"), "injection": ("layerwise", "joint")}
    choices |= {"share": ("sample", "batch"), "antithetic": (False, True)}
    mine = {k: v for k, v in choices.items() if k in {f.name for f in dataclasses.fields(estimator)}}
    problem, layers = known(problem_name)
    for values in itertools.product(*mine.values()):
        changed = dataclasses.replace(estimator, **dict(zip(mine, values, strict=True)))
        check_forwards(changed, problem, served(changed, problem, layers), COPIES)


@EVERY
def test_frozen_changes_nothing(name, problem_name):
    estimator, problem, layers = setting(name, problem_name)
    alone = [estimator.directions(problem, layers, Block(k, COPIES), SEED) for k in range(2)]
    with problem.frozen():
        kept = [estimator.directions(problem, layers, Block(k, COPIES), SEED) for k in (1, 0)]
    assert same_bits(alone[0], kept[1])
    assert same_bits(alone[1], kept[0])


@EVERY
def test_refusals_are_sentences_about_layers(name, problem_name):
    estimator = estimator_of(name)
    problem, layers = known(problem_name)
    refused = estimator.refusals(problem, layers)
    assert set(refused) <= {x.name for x in layers}
    for why in refused.values():
        assert len(why.split()) > 4
        assert "\n" not in why


@EVERY
def test_a_layer_alone_gets_what_it_gets_in_company(name, problem_name):
    """Layer by layer, other layers do not matter (unless they decide the layer's own assignment)."""
    estimator, problem, layers = setting(name, problem_name)
    if estimator.injection == "joint":
        return
    together = estimator.directions(problem, layers, Block(0, COPIES), SEED)
    assigned = estimator.assignment(layers)
    for layer in layers:
        own = estimator.assignment([layer])
        if assigned is not None and own[layer.name] != assigned[layer.name]:
            continue
        alone = estimator.directions(problem, [layer], Block(0, COPIES), SEED)
        assert_same(alone, {n: together[n] for n in layer.parameters}, 1e-12)


@EVERY
def test_a_function_of_the_parameters(name, problem_name):
    """``problem.at(values)`` and a model that holds the values give the same."""
    estimator, problem, layers = setting(name, problem_name)
    generator = torch.Generator().manual_seed(8)
    values = {
        n: p + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for n, p in problem.parameters.items()
    }
    got = estimator.directions(problem.at(values), layers, Block(0, COPIES), SEED)
    holder = build(problem_name)
    with torch.no_grad():
        for n, p in holder.module.named_parameters():
            p.copy_(values[n])
    want = estimator.directions(holder, layers, Block(0, COPIES), SEED)
    assert_same(got, want, 1e-9)


def test_declared_backward_is_the_truth(name):
    """Between the layers stands a function that no backward pass can cross, though a forward derivative can."""

    class Wall(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_forward(y)
            return y

        @staticmethod
        def jvp(ctx, tangent):
            (y,) = ctx.saved_tensors
            return (1 - y**2) * tangent

        @staticmethod
        def backward(ctx, g):
            raise Boom

    def net(function):
        return nn.Sequential(nn.Linear(2, 3), Lambda(function), nn.Linear(3, 2)).double()

    batch = (torch.ones(4, 2).double(), torch.ones(4, 2).double())
    estimator = estimator_of(name)
    open_problem = Problem(net(torch.tanh), batch, "mse")
    layers = served(estimator, open_problem, layers_of(open_problem))
    walled = Problem(net(Wall.apply), batch, "mse")
    if estimator.uses_backward:
        with pytest.raises(Boom):
            estimator.directions(walled, layers, Block(0, COPIES), SEED)
    else:
        estimator.directions(walled, layers, Block(0, COPIES), SEED)


def test_registered_facts_agree_with_the_class(name):
    entry, estimator = ESTIMATORS.entry(name), make(name).estimator
    assert entry.summary
    assert estimator.target in ("exact", "smoothed", "surrogate")
    assert entry.meta.get("target", estimator.target) == estimator.target
    assert estimator.injection in ("layerwise", "joint", None)
    assert make(name).label == name
    assert copy.copy(estimator) == estimator


def test_declared_target_on_a_quadratic(name):
    """Where all smoothed gradients are the gradient. Equal without noise; with noise in the mean (1e-6, 0.4)."""
    estimator = make(name, {"sigma": 0.3, "antithetic": True}).estimator
    problem, layers = known("linear")
    if estimator.own_layers:
        layers = served(estimator, problem, layers)
        truth = naive.level_of_quadratic(problem, estimator.draw, layers)
    else:
        truth = naive.pathwise(problem, naive.silent(), layers, Block(0, 1), SEED)
    if estimator.target == "exact" and not estimator.stochastic:
        assert_same(estimator.directions(problem, layers, Block(0, 2), SEED), truth, 1e-9)
    elif estimator.target != "surrogate":
        MeanTest(collect(estimator, problem, layers, 64, 64), flat(truth)).check(0.4)
