"""A plan at work: its directions are those of its methods, its noise is new, and it is told apart and repeated."""

from __future__ import annotations

import json
import math
import pickle

import pytest
import torch
from scipy import stats as sps

import gradprobe as gp
from gradprobe.core.copyplan import LayerPlan, Plan
from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Block, Streams
from gradprobe.estimators.base import make
from gradprobe.store.info import read_info
from tests.problems_tiny import classifier
from tests.truth.checks import check_forwards, known, layers_of, same_bits


def plan_of(*entries):
    """A plan written by hand: (layer, method, copies, scale)."""
    layers = tuple(LayerPlan(*entry, cost=0.0, share=0.0) for entry in entries)
    return Plan("cosine", 0.5, False, "equivalents", layers, 0.0, 0.0, 0.5)


PAIRS = "lr(antithetic=True, sigma=0.1)"
PLAN = plan_of(("first", "es(sigma=0.1)", 3, 1.25), ("last", PAIRS, 2, 0.5))


def by_hand(problem, streams, blocks, copies):
    """Mean over blocks of what each layer's method gives by itself, scaled."""
    sums = {}
    for k in range(blocks):
        for layer in layers_of(problem):
            entry = next(x for x in PLAN.layers if x.layer == layer.name)
            estimator = make(entry.method).estimator
            got = estimator.directions(problem, [layer], Block(k, copies * entry.copies), streams)
            for name, value in got.items():
                sums[name] = sums.get(name, 0) + (value * entry.scale).double()
    values = problem.parameters
    return {name: (total / blocks).to(values[name].dtype) for name, total in sums.items()}


@pytest.mark.parametrize(("blocks", "block"), [(1, 1), (3, 1), (2, 5)])
def test_directions_are_those_of_its_methods_one_layer_after_the_other(blocks, block):
    problem = classifier()
    got = gp.estimate(problem, PLAN, copies=blocks * block, block=block, seed=7, root_seed=2)
    assert same_bits(got, by_hand(problem, Streams(2, 7, "planned draw"), blocks, block))
    if blocks * block == 1:
        assert same_bits(got, gp.estimate(problem, PLAN, seed=7, root_seed=2))


def test_its_noise_is_not_that_of_the_run_it_came_from():
    problem = classifier()
    got = gp.estimate(problem, plan_of(("first", "lr", 4, 1.0), ("last", "lr", 4, 1.0)), seed=1)
    same_key = gp.estimate(problem, "lr", copies=4, seed=1)
    assert not any(torch.equal(got[name], same_key[name]) for name in got)


def test_layers_of_a_joint_draw_are_noisy_together():
    problem, layers = known("mlp")
    label = "lr(injection=joint, sigma=0.1)"
    estimator = make(plan_of(*((x.name, label, 6, 2.0) for x in layers))).estimator
    assert estimator.injection == "joint"
    streams = Streams(0, 3)
    got = estimator.directions(problem, layers, Block(1, 2), streams)
    want = make(label).estimator.directions(problem, layers, Block(1, 12), Streams(0, 3, "planned draw"))
    assert same_bits(got, {name: 2.0 * value for name, value in want.items()})
    check_forwards(estimator, problem, layers, 4)


def test_declared_forwards_of_a_mixed_plan_are_counted_ones():
    problem = classifier()
    check_forwards(make(PLAN).estimator, problem, layers_of(problem), 3)
    assert make(PLAN).estimator.forwards(layers_of(problem), 3) == 1 + 3 * (3 + 2)


def test_a_layer_without_copies_gets_zeros():
    problem = classifier()
    got = gp.estimate(problem, plan_of(("first", "", 0, 0.0), ("last", "es", 2, 1.0)))
    assert not got["first.weight"].any()
    assert got["last.weight"].any()


def test_one_plan_has_one_short_label_however_it_is_given(tmp_path):
    made = make(PLAN)
    file = PLAN.save(tmp_path / "plan.json")
    ways = [str(file), f"planned(file={str(file)!r})", PLAN.spec, made.spec, made.estimator]
    assert {make(way).label for way in ways} == {made.label}
    assert len(made.label) < 20
    assert (
        make(plan_of(*((x.layer, x.method, x.copies + 1, x.scale) for x in PLAN.layers))).label != made.label
    )
    assert pickle.loads(pickle.dumps(made.estimator)) == made.estimator
    assert make("planned").label == "planned"


def test_a_run_of_a_plan_can_be_repeated_from_its_configuration(tmp_path):
    problem = classifier()
    ds = gp.probe(problem, PLAN, seeds=2, out=tmp_path / "run")
    assert ds.sizes["copies"] == 4
    assert ds.attrs["block"] == 1
    assert (ds["forwards"].sum("parameter").diff("copies") == 5).all()
    configuration = read_info(tmp_path / "run").configuration
    again = gp.probe(problem, configuration["estimators"], copies=4, block=1, seeds=2)
    assert list(again["estimator"].values) == [make(PLAN).label]
    assert (again["dot"] == ds["dot"]).all()
    joined = gp.probe(problem, ["lr", "es"], copies=4, block=1, seeds=2, out=tmp_path / "run")
    assert make(PLAN).label in joined["estimator"].values
    assert make(PLAN).spec in read_info(tmp_path / "run").configuration["estimators"]
    view = json.loads((tmp_path / "run" / "run.json").read_text())["views"]
    assert ["spec" in v for v in view] == [True, False, False]


def test_beside_other_methods_copies_must_be_given():
    problem = classifier()
    with pytest.raises(UsageError, match=r"one copy of planned\(.*\) is a whole estimate, one of lr is not"):
        gp.probe(problem, ["lr", PLAN])
    ds = gp.probe(problem, ["lr", PLAN], copies=2, block=1, seeds=1)
    assert (ds["forwards"].sum("parameter").diff("copies").isel(estimator=1) == 5).all()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("planned(file='nowhere.json')", "there is no plan 'nowhere.json'"),
        ("nowhere.json", "there is no plan"),
        ("planned(layers=3)", "planned takes layers="),
        ("planned(layers={'first': 'lr'})", "a plan's layer is"),
        ("planned(layers={'first': ('lr', 0.5, 1.0)})", "copies of layer 'first' must be a whole number"),
        ("planned(layers={'first': ('lr', 5, 'x')})", "scale of layer 'first' must be a finite number"),
        ("planned(layers={'first': ('lx', 5, 1.0)})", "unknown estimator 'lx'"),
        ("planned(layers={'first': ('bp', 5, 1.0)})", "bp has no noise"),
        ("planned(layers={'first': ('planned', 5, 1.0)})", "cannot hold a plan"),
        ("planned(layers={'first': ('lr', 5, 1.0)})", "does not serve layer 'last': the plan has no entry"),
        (PLAN, None),
    ],
)
def test_bad_plans_get_one_sentence(given, says):
    problem = classifier()
    if says is None:
        gp.estimate(problem, given)
        return
    with pytest.raises(UsageError, match=says) as error:
        gp.estimate(problem, given)
    assert "\n" not in str(error.value)


def test_a_plan_reaches_its_predicted_cosine():
    """Two layers, LR and ES: predicted from 8 seeds, measured on single whole estimates of 8 others.

    The difference over its standard error follows Student's t with at least 7 degrees of freedom; false alarm 1e-4.
    """
    problem = classifier(samples=8)
    ds = gp.probe(problem, "lr,es", copies=200, seeds=8, sigma=0.01)
    plan = gp.plan(ds, cosine=0.8)
    fresh = gp.probe(problem, plan, copies=32, block=1, seeds=range(100, 108))
    law = gp.stats.predict(gp.stats.alignment(fresh, over="model"), 1).isel(estimator=0)
    q = sps.t.ppf(0.975, 7)
    errors = [(plan.high - plan.cosine) / q, (float(law["cosine_high"]) - float(law["cosine"])) / q]
    limit = sps.t.isf(0.5e-4, 7) * math.hypot(*errors)
    assert limit < 0.1
    assert abs(float(law["cosine"]) - plan.cosine) < limit
    for x in plan.layers:
        gain = gp.stats.alignment(fresh).sel(layer=x.layer).isel(estimator=0)["gain"]
        assert 0.7 < float(gain) < 1.4
    each = fresh["equivalents"].sum("parameter").diff("copies")
    assert each.values == pytest.approx(plan.cost)
