"""A plan at work: its directions are those of its methods, its noise is new, and it is told apart and repeated."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
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


class Cliff(torch.nn.Module):
    """Two layers; noise on the output of the first makes its loss NaN."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        moved = (h - torch.nn.functional.linear(x, self.first.weight, self.first.bias)).abs().amax(1) > 1e-4
        return self.last(torch.where(moved[:, None], torch.nan, h))


def cliff():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return gp.Problem(Cliff(), (torch.randn(6, 4), torch.arange(6) % 3))


LOST = plan_of(("first", "lr(sigma=0.1)", 10, 1.0), ("last", "lr(sigma=0.1)", 4, 1.0))


def test_a_layer_that_lost_every_copy_is_no_silent_zero():
    problem = cliff()
    with pytest.raises(UsageError, match="no copy's loss was finite in one of the layers"):
        gp.estimate(problem, LOST)
    ds = gp.probe(problem, LOST, seeds=2)
    assert (ds["status"] == "failed").all()
    assert "in one of the layers the loss of every copy was not finite" in ds.attrs["notes"]
    assert gp.estimate(problem, LOST, layers="last")["last.weight"].any()


def test_a_plan_books_the_share_of_its_estimates_that_the_worst_layer_lost():
    """The noise of its own key, drawn again: a copy is lost where any of the samples moved."""
    problem = cliff()
    plan = plan_of(("first", "lr(sigma=4e-5)", 20, 1.0), ("last", "lr(sigma=0.1)", 4, 1.0))
    layers = layers_of(problem)
    streams = Streams(0, 0)
    alone = make("lr(sigma=4e-5)").estimator
    own = Streams(0, 0, "planned draw")
    gone = [alone.read(problem, layers[:1], Block(k, 20), own).nonfinite for k in range(3)]
    assert any(0 < n < 20 for n in gone)
    read = [make(plan).estimator.read(problem, layers, Block(k, 1), streams).nonfinite for k in range(3)]
    assert read == [n / 20 for n in gone]


def test_a_plan_books_the_same_forwards_however_it_is_run(tmp_path):
    problem = classifier()
    whole = gp.probe(problem, PLAN, copies=4, block=1, seeds=2)
    assert (whole["forwards"].isel(estimator=0).sum("parameter") == 5 * whole["copies"]).all()
    gp.probe(problem, PLAN, copies=2, block=1, seeds=2, keep="sums", out=tmp_path / "run")
    further = gp.probe(problem, PLAN, copies=4, block=1, seeds=2, keep="sums", out=tmp_path / "run")
    shared = gp.probe(problem, PLAN, copies=4, block=1, seeds=2, workers=2)
    for other in (further, shared):
        for name in ("forwards", "equivalents", "nonfinite", "dot"):
            assert (other[name] == whole[name]).all()


@pytest.mark.parametrize(
    ("first", "says", "options"),
    [
        (("lr(antithetic=True)", 3), "antithetic pairs do not fit into a block of 3", {}),
        (("lr(sigma={'last': 0.1})", 3), "says nothing of layer 'first'", {}),
        (("lr(sigma={'lost': 0.1, '*': 1})", 3), "unknown layer in sigma 'lost'", {}),
        (("lr(centre=mean)", 1), "centre=mean needs other copies", {}),
        (("lr", 3), "of memory=; give more", {"memory": "1KiB"}),
    ],
)
def test_a_plan_that_cannot_run_is_refused_before_anything_is_written(tmp_path, first, says, options):
    plan = plan_of(("first", *first, 1.0), ("last", "lr", 3, 1.0))
    with pytest.raises(UsageError, match=says):
        gp.probe(classifier(), plan, seeds=1, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_memory_bounds_the_copies_of_a_plan_that_run_at_once(monkeypatch):
    from gradprobe.estimators import draws

    asked = []
    room_for = draws.room_for
    monkeypatch.setattr(draws, "room_for", lambda *given: asked.append(given[4:]) or room_for(*given))
    gp.probe(classifier(), PLAN, seeds=1, memory="64MiB")
    assert asked
    assert set(asked) == {(64 * 2**20, 1)}


def test_the_quick_look_sees_the_noise_of_a_plan():
    """Noise too small for the loss's precision is a warning for a plan as for its method."""
    problem = classifier()
    small = plan_of(("first", "lr(sigma=1e-7)", 4, 1.0), ("last", "lr(sigma=1e-7)", 4, 1.0))
    alone = gp.doctor(problem, "lr(sigma=1e-7)", quick=True)
    assert alone.warnings
    assert [f.sentence for f in gp.doctor(problem, small, quick=True).warnings] == [
        f.sentence for f in alone.warnings
    ]
    assert json.loads(gp.probe(problem, small, seeds=1).attrs["doctor"])


def test_a_plan_says_that_its_model_cannot_be_followed(monkeypatch):
    from gradprobe.probes import equivalents

    monkeypatch.setattr(equivalents, "_followed", lambda problem: "it is hidden")
    ds = gp.probe(classifier(), PLAN, seeds=1)
    assert "a copy is booked as a whole forward: it is hidden" in ds.attrs["notes"]


def test_a_plan_is_taken_beside_bp_by_its_path_and_with_numbers_of_numpy(tmp_path):
    problem = classifier()
    assert gp.probe(problem, [PLAN, "bp"], seeds=1).sizes["copies"] == 4
    file = PLAN.save(tmp_path / "a,b.json")
    for way in (file, str(file), [file]):
        assert gp.probe(problem, way, seeds=1)["estimator"].values == [make(PLAN).label]
    with pytest.raises(UsageError, match="options of its methods already; leave sigma out"):
        gp.estimate(problem, str(file), sigma=0.1)
    rows = [
        (np.str_(x.layer), np.str_(x.method), np.int64(x.copies), np.float32(x.scale)) for x in PLAN.layers
    ]
    assert make(plan_of(*rows)).label == make(PLAN).label
    assert Plan.load(plan_of(*rows).save(tmp_path / "numpy.json")) == PLAN
    with pytest.raises(UsageError, match="scale of layer 'first' must be a finite number, not nan"):
        make(plan_of(("first", "lr", 1, math.nan)))


def test_a_plan_in_a_plan_is_not_opened(tmp_path):
    file = tmp_path / "plan.json"
    for method in (str(file), f" {file} ", f"planned(file={str(file)!r})", "planned(layers=3)"):
        file.write_text(plan_of(("first", method, 1, 1.0), ("last", "lr", 1, 1.0)).to_json())
        with pytest.raises(UsageError, match="a plan cannot hold a plan"):
            make(file)


def test_a_plan_of_another_model_is_told() -> None:
    plan = "planned(layers={'first': ('lr', 2, 1.0), 'elsewhere': ('es', 2, 1.0)})"
    with pytest.raises(UsageError, match="for another model: it has layer") as caught:
        gp.estimate(classifier(), plan)
    assert "\n" not in str(caught.value)
