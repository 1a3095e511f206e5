"""Moments of samples in runs: stored, resumed, shared out, added to, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.store.schema import SAMPLE_MOMENTS
from tests.probes.test_probe import probe_unlucky
from tests.problems_small import build
from tests.problems_tiny import classifier

SMALL = {"copies": 12, "block": 4, "seeds": 2}


class Enough(Exception):
    pass


def stop_after(copies: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, label: str) -> None:
        if done >= copies:
            raise Enough

    return progress


def same(one: object, other: object) -> None:
    for name in SAMPLE_MOMENTS:
        assert np.array_equal(one[name].values, other[name].values, equal_nan=True), name


def test_a_run_without_them_has_no_such_variables() -> None:
    ds = gp.probe(classifier(), ["lr"], **SMALL)
    assert not {"sample", "sample_loss", *SAMPLE_MOMENTS} & {*ds.variables, *ds.dims}


def test_what_is_stored_and_that_moments_and_forwards_stay_as_they_are() -> None:
    problem = classifier()
    plain = gp.probe(problem, ["lr", "alr", "es", "bp"], **SMALL)
    ds = gp.probe(problem, ["lr", "alr", "es", "bp"], per_sample=True, **SMALL)
    for name in ("dot", "sqnorm", "block_sqnorm", "forwards", "seed_product"):
        assert np.array_equal(ds[name].values, plain[name].values, equal_nan=True), name
    assert np.allclose(ds["sample_loss"].values, problem.clean_losses().numpy())
    for name in SAMPLE_MOMENTS:
        assert ds[name].dims == ("estimator", "parameter", "seed", "sample")
        assert ds[name].sel(estimator="bp").isnull().all()
        assert ds[name].sel(estimator=["lr", "alr", "es"]).notnull().all()
    tau = ds["sample_sqnorm"] - ds["sample_product"]
    assert (tau.sel(estimator=["lr", "alr", "es"]) >= 0).all()  # |H1 - H2|^2 / 2


def test_a_hybrid_reads_what_its_parts_read() -> None:
    ds = gp.probe(classifier(), ["lr", "es", "hybrid(es_layers=1)"], per_sample=True, **SMALL)
    hybrid = ds.sel(estimator="hybrid(es_layers=1)")
    for name in SAMPLE_MOMENTS:
        first, last = (
            ds[name].sel(estimator=e, parameter=p) for e, p in (("es", "first.bias"), ("lr", "last.bias"))
        )
        assert np.array_equal(hybrid[name].sel(parameter="first.bias"), first)
        assert np.array_equal(hybrid[name].sel(parameter="last.bias"), last)


@pytest.mark.parametrize("copies", [4, 8, 20])
def test_resuming_gives_the_same_bits(tmp_path: Path, copies: int) -> None:
    given = ["lr", "alr", "es(injection=joint)"]
    whole = gp.probe(classifier(), given, per_sample=True, **SMALL)
    out = tmp_path / "run"
    with pytest.raises(Enough):
        gp.probe(classifier(), given, per_sample=True, out=out, progress=stop_after(copies), **SMALL)
    stopped = gp.open_run(out)
    assert stopped["sample_sqnorm"].dims == whole["sample_sqnorm"].dims
    same(gp.probe(classifier(), given, per_sample=True, out=out, **SMALL), whole)
    same(gp.open_run(out), whole)


def test_more_copies_go_on_from_the_sums(tmp_path: Path) -> None:
    given = {"per_sample": True, "keep": "sums", "block": 4, "seeds": 2}
    problem, fresh = classifier(), classifier()
    gp.probe(problem, ["lr"], out=tmp_path / "run", copies=8, **given)
    before = problem.forwards
    ds = gp.probe(problem, ["lr"], out=tmp_path / "run", copies=12, **given)
    same(ds, gp.probe(fresh, ["lr"], copies=12, **given))
    assert problem.forwards - before <= fresh.forwards - 2 * 2 * 8


def test_workers_give_the_same_bits() -> None:
    one = gp.probe(classifier(), ["lr", "es"], per_sample=True, **SMALL)
    two = gp.probe(classifier(), ["lr", "es"], per_sample=True, workers=2, threads=1, **SMALL)
    same(one, two)


def test_a_run_that_lacks_them_gets_them_and_keeps_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    ds = gp.probe(classifier(), ["lr"], out=out, per_sample=True, **SMALL)
    same(ds, gp.probe(classifier(), ["lr"], per_sample=True, **SMALL))
    more = gp.probe(classifier(), ["alr"], out=out, **SMALL)
    assert more["sample_sqnorm"].notnull().all()
    assert more.sizes["sample"] == 8


def test_little_memory_changes_nothing_but_rounding() -> None:
    whole = gp.probe(classifier(), ["lr", "es"], per_sample=True, **SMALL)
    little = gp.probe(classifier(), ["lr", "es"], per_sample=True, memory="10KiB", **SMALL)
    for name in SAMPLE_MOMENTS:
        assert np.allclose(little[name], whole[name], rtol=1e-4)


def test_more_samples_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gp.probe(classifier(), ["lr", "lr(injection=joint)"], per_sample=True, **SMALL)
    monkeypatch.setattr("gradprobe.estimators.pulling_apart.CHUNK", 3 * 8 * 3 * 25)
    some = gp.probe(classifier(), ["lr", "lr(injection=joint)"], per_sample=True, **SMALL)
    for name in SAMPLE_MOMENTS:
        assert np.allclose(some[name], whole[name], rtol=1e-5, atol=1e-12)


def test_copies_that_are_left_out_contribute_nothing() -> None:
    _, ds = probe_unlucky(0.28, per_sample=True)
    assert ds["nonfinite"].isel(copies=-1).sum() > 0
    for name in SAMPLE_MOMENTS:
        assert ds[name].notnull().all()
    _, gone = probe_unlucky(0.0, per_sample=True)
    assert gone["sample_sqnorm"].sel(parameter="first.weight").isnull().all()
    assert gone["sample_sqnorm"].sel(parameter="last.weight").notnull().all()


def test_what_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(gp.UsageError, match="per_sample"):
        gp.probe(classifier(), ["lr"], per_sample="first", **SMALL)


@pytest.mark.parametrize(
    ("problem", "given", "why"),
    [
        ("scalar-loss", {}, "one number for the whole batch"),
        ("positional", {}, "noise in one sample moves other samples"),
        ("mlp", {"block": 1}, "a block of 1 has no two halves"),
        ("mlp", {"block": 2, "antithetic": True}, "a block of 2 has no two halves .at least 4 copies"),
    ],
)
def test_refusals_name_the_layer_and_leave_nothing(
    tmp_path: Path, problem: str, given: dict, why: str
) -> None:
    with pytest.raises(gp.UsageError, match=f"(?s)layer '.*' apart: .*{why}.*layers=") as raised:
        gp.probe(
            build(problem), ["lr"], copies=4, out=tmp_path / "run", per_sample=True, **{"block": 4, **given}
        )
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


class Mixed(nn.Module):
    """A layer whose output keeps samples apart only in batches of more than one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale * (2.0 if len(x) > 1 else 1.0)


def test_a_layer_that_runs_otherwise_on_one_sample_is_refused() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    problem = gp.Problem(nn.Sequential(Mixed(), nn.Linear(3, 2)), (x, torch.tensor([0, 1, 1, 0])))
    with pytest.raises(gp.UsageError, match="do not add up"):
        gp.probe(problem, ["lr"], per_sample=True, **SMALL)
    assert gp.probe(problem, ["lr"], layers="1", per_sample=True, **SMALL)["sample_sqnorm"].notnull().all()


def test_fewer_copies_than_the_run_has_still_show(tmp_path: Path) -> None:
    """Moments of samples come from the unit that has them, the others from the one with most copies."""
    out, more = tmp_path / "run", SMALL | {"copies": 24}
    plain = gp.probe(classifier(), ["lr", "es"], out=out, **more)
    ds = gp.probe(classifier(), ["lr", "es"], out=out, per_sample=True, **SMALL)
    same(ds, gp.probe(classifier(), ["lr", "es"], per_sample=True, **SMALL))
    for name in ("dot", "sqnorm", "forwards"):
        assert np.array_equal(ds[name].values, plain[name].values), name
