"""The sign of a finished update: whose it is, on which noise, at what cost, and how it is written."""

from __future__ import annotations

import pickle

import pytest
import torch

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.estimators.base import make
from tests.problems_tiny import classifier
from tests.truth.checks import (
    SEED,
    check_forwards,
    check_keys_decide,
    check_no_trace,
    known,
    layers_of,
    same_bits,
)

METHODS = [
    "lr",
    "es(antithetic=True)",
    "lr(injection=joint)",
    "hybrid",
    "es-rank",
    "planned",
    "sign(lr, copies=3)",
]


def test_results_know_that_a_copy_is_a_whole_estimate():
    ds = gp.probe(classifier(), ["sign(lr, copies=2)", "sign(fa)", "lr"], copies=8, block=4, seeds=1)
    assert ds["whole"].values.tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["bp", "fa", "sign-symmetric"])
def test_of_a_method_without_noise(name):
    problem = classifier()
    update = gp.estimate(problem, name)
    got = gp.estimate(problem, f"sign({name})", copies=7)
    assert same_bits(got, {n: torch.sign(g) for n, g in update.items()})
    made = make(f"sign({name})").estimator
    assert (made.stochastic, made.injection, made.target) == (False, None, "surrogate")
    assert made.uses_backward


@pytest.mark.parametrize("method", METHODS)
def test_of_a_method_with_noise_is_the_mean_of_signs_of_finished_estimates(method):
    """Two blocks of 3 finished estimates of 4 copies; noise has keys of its own."""
    problem, layers = known("mlp")
    estimator = make(f"sign({method}, copies=4)", {"sigma": 0.1}).estimator
    member = make(method, {"sigma": 0.1}).estimator
    assert estimator.injection == member.injection
    for index in range(2):
        got = estimator.directions(problem, layers, Block(index, 3), SEED)
        finished = [
            member.directions(
                problem, layers, Block(3 * index + k, 4), Streams(SEED.root, SEED.seed, "sign draw")
            )
            for k in range(3)
        ]
        for name, value in got.items():
            want = torch.stack([each[name] for each in finished]).sign().mean(0)
            torch.testing.assert_close(value, want, rtol=1e-12, atol=1e-12)
    check_forwards(estimator, problem, layers, 3)


def test_keeps_the_contract_of_a_method_with_noise():
    estimator = make("sign(es(sigma=0.1), copies=2)").estimator
    problem, layers = known("cnn")
    check_keys_decide(estimator, problem, layers)
    check_no_trace(estimator, problem, layers)
    refused = make("sign(lr(share=batch))").estimator.refusals
    problem, layers = known("scalar-loss")
    assert refused(problem, layers) == make("lr(share=batch)").estimator.refusals(problem, layers) != {}


def test_copies_that_are_lost_are_a_share_of_an_estimate():
    problem = classifier()
    broken = gp.Problem(problem.module, (problem.inputs, problem.target), _often_infinite)
    estimator = make("sign(es(sigma=1.0), copies=8)").estimator
    read = estimator.read(broken, layers_of(broken), Block(0, 2), SEED)
    member = make("es(sigma=1.0)").estimator
    own = Streams(SEED.root, SEED.seed, "sign draw")
    lost = [member.read(broken, layers_of(broken), Block(k, 8), own).nonfinite for k in range(2)]
    assert 0 < sum(lost) < 16
    assert read.nonfinite == sum(lost) / 8


def test_label_is_canonical_and_options_of_a_run_reach_the_method():
    ways = ["sign(lr(sigma=0.10, noise=gaussian), copies=100)", "sign(copies=100, of=lr(sigma=0.1))"]
    assert {make(way).label for way in ways} == {"sign(lr(sigma=0.1), copies=100)"}
    assert make("sign(lr, copies=100)", {"sigma": 0.1}).label == "sign(lr(sigma=0.1), copies=100)"
    assert make("sign(bp)").label == make("sign").label == "sign"
    made = make("sign(es-rank, copies=4)").estimator
    assert pickle.loads(pickle.dumps(made)) == made
    assert make(made).label == "sign(es-rank, copies=4)"
    plan = make("sign(planned(layers={'first': ('es', 2, 1.0)}), copies=3)")
    assert len(plan.label) < 20
    assert make(plan.spec).label == plan.label


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("sign(bp, copies=3)", "bp has no noise"),
        ("sign(fa, copies=3)", "fa has no noise"),
        ("sign(lrr)", "Did you mean 'lr'"),
        ("sign(lr, of=es)", "given of twice"),
        ("sign(lr, copies=0)", "positive whole number"),
        ("lr(bp)", "options of lr are written name=value"),
        ("sign(3)", "write it as name"),
        ("planned(layers={'a': ('sign(planned)', 1, 1.0)})", "cannot hold a plan"),
        ("planned(layers={'a': (\"sign('x.json')\", 1, 1.0)})", "cannot hold a plan"),
    ],
)
def test_refuses_in_a_sentence(spec, match):
    with pytest.raises(UsageError, match=match) as told:
        make(spec)
    assert "\n" not in str(told.value)


def test_a_finished_estimate_that_its_method_cannot_fill():
    for spec in ("sign(spsa)", "sign(es-rank)", "sign(lr(centre=mean))"):
        with pytest.raises(UsageError, match="a finished estimate of sign has copies=1: "):
            gp.estimate(classifier(), spec)


def test_probed_beside_its_method(tmp_path):
    ds = gp.probe(
        classifier(),
        ["lr", "sign(lr, copies=5)", "sign(bp)"],
        copies=8,
        block=4,
        seeds=3,
        sigma=0.1,
        out=tmp_path,
    )
    assert ds["estimator"].values.tolist() == ["lr(sigma=0.1)", "sign(lr(sigma=0.1), copies=5)", "sign"]
    forwards = ds["forwards"].sum("parameter").isel(copies=-1, seed=0).values
    assert forwards[1] == 5 * forwards[0]
    again = gp.open_run(tmp_path)
    assert (again["dot"].sel(estimator="sign(lr(sigma=0.1), copies=5)") == ds["dot"].isel(estimator=1)).all()
    assert gp.plots.similarity(again, estimators="sign(lr(sigma=0.1), copies=5)") is not None


def _often_infinite(out, target):
    losses = (out**2).mean(1)
    return torch.where(losses > 12.0, torch.inf, losses)
