"""Doctor's table of a stored run, and plans as tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe.report.looks import doctor_table
from gradprobe.report.plans import plan_table
from gradprobe.store.looks import joined_looks
from tests.checkup.models import batch, net
from tests.synthetic import Truth, make_run

QUICK = {"copies": 20, "seeds": 2}


def detached() -> gp.Problem:
    return gp.Problem(net(lambda m, x: m.last(torch.tanh(m.first(x)).detach())), batch(6, 4))


def test_the_stored_table_is_that_of_doctor(tmp_path: Path) -> None:
    """The independent oracle is ``gp.doctor`` itself: the same findings, the same cells."""
    problem = gp.Problem(net(), batch(6, 4))
    gp.probe(problem, ["lr", "es"], out=tmp_path / "run", **QUICK)
    found, layers = doctor_table(gp.open_run(tmp_path / "run"))
    seen = gp.doctor(problem, ["lr", "es"], quick=True)
    own = [f for f in seen.findings if f.layer is None]
    assert found.to_dict("list") == {
        name: [getattr(f, name) for f in own] for name in ("check", "status", "sentence")
    }
    cells = {(f.layer, f.check): f.cell for f in seen.findings if f.layer is not None}
    assert list(layers.index) == ["first", "last"]
    assert {(x, c): layers.loc[x, c] for x in layers.index for c in layers.columns} == cells
    assert list(layers.columns) == [c for c in seen.table()["check"].unique() if c in layers.columns]


def test_requests_of_a_run_are_joined_in_the_order_of_layers(tmp_path: Path) -> None:
    problem = detached()
    for names in ("last", "first", "first"):  # what is looked at, and at last nothing that is left to compute
        ds = gp.probe(problem, "lr", layers=names, out=tmp_path / "run", **QUICK)
    _, layers = doctor_table(ds)
    assert list(layers.index) == ["first", "last"]
    assert layers.loc["first", "backprop"] == "warning"
    assert [w["layer"] for w in json.loads(ds.attrs["doctor"])] == ["first"]


def test_what_was_warned_of_stays() -> None:
    old = {
        "problem": [{"check": "a", "status": "warning", "sentence": "bad"}],
        "layers": {"x": {"c": "warning", "d": "ok"}},
    }
    new = {
        "problem": [
            {"check": "a", "status": "ok", "sentence": "good"},
            {"check": "b", "status": "ok", "sentence": "new"},
        ],
        "layers": {"x": {"c": "ok", "d": "warning"}, "y": {"c": "3"}},
    }
    both = joined_looks(old, new)
    assert [x["sentence"] for x in both["problem"]] == ["bad", "new"]
    assert both["layers"] == {"x": {"c": "warning", "d": "warning"}, "y": {"c": "3"}}
    assert old["layers"]["x"]["d"] == "ok"
    assert joined_looks(None, {}) == {}


def test_runs_without_a_table_have_none() -> None:
    assert doctor_table(make_run(np.random.default_rng(0))) is None


def test_a_hundred_layers_stay_small() -> None:
    looks = {
        "problem": [],
        "layers": {f"encoder.layer.{i}": dict.fromkeys("abcdef", "ok") for i in range(100)},
    }
    assert len(json.dumps(joined_looks({}, looks))) < 12_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    problem = gp.load_problem(checkpoint="trained", batch_size=8)
    return gp.probe(problem, "lr,es,hybrid,bp", copies=60, seeds=3, layers=["conv1", "fc"])


def test_a_plan_table_is_the_plan(run) -> None:
    plan, found = gp.plan(run, cosine=0.3), plan_table(run, 0.3)
    assert found.plan == plan
    assert found.why == ""
    assert found.heading == plan.heading()
    assert found.layers.set_index("layer").equals(plan.table())
    assert list(found.rivals["method"]) == [r.method for r in plan.rivals]
    alone = {r.method: r.best for r in plan.rivals if r.best}
    assert alone
    times = found.rivals.set_index("method")["times"].dropna().to_dict()
    assert times == pytest.approx({m: plan.cost / best for m, best in alone.items()})
    assert [*found.notes] == plan.sentences()[len(plan.rivals) :]
    assert "costs less than" in found.bound


def test_no_plan_is_one_sentence() -> None:
    biased = make_run(np.random.default_rng(0), estimators={"alr": Truth(0.5, 10.0)})
    bp = make_run(np.random.default_rng(0), estimators={"bp": Truth(1.0, 0.0, stochastic=False)})
    for ds in (biased, bp):
        found = plan_table(ds, 0.9)
        assert found.plan is None
        assert found.why
        assert "\n" not in found.why
        assert found.layers.empty
        assert not found.notes
