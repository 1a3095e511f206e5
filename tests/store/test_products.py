"""Products of the seeds' final directions, and the sums from which a run goes on to more copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import gradprobe as gp
from gradprobe.probes import keep as keep_file
from gradprobe.store.info import read_info
from tests.probes.test_recovery import counted
from tests.problems_tiny import classifier, linear_problem
from tests.stochastic import Shaky
from tests.store.test_run import equal

SMALL = {"copies": 12, "block": 4, "seeds": 3}


def double(problem: gp.Problem) -> gp.Problem:
    inputs = problem.inputs.double() if problem.inputs.is_floating_point() else problem.inputs
    return gp.Problem(problem.module.double(), (inputs, problem.target))


def naive(problem: gp.Problem, estimator: object, seeds: list[int], copies: int, name: str) -> np.ndarray:
    found = [gp.estimate(problem, estimator, copies=copies, block=4, seed=s)[name].double() for s in seeds]
    flat = torch.stack([g.flatten() for g in found])
    return (flat @ flat.T).numpy()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "estimator",
    ["lr", "alr", "es(noise=laplace)", "hybrid(es_layers=1)", "lr(injection=joint)", Shaky()],
    ids=str,
)
def test_products_are_those_of_the_directions(estimator: object, exact: bool) -> None:
    problem = double(classifier()) if exact else classifier()
    ds = gp.probe(problem, [estimator, "bp"], copies=12, block=4, seeds=[0, 2, 5])
    for name in ds["parameter"].values:
        found = ds["seed_product"].isel(estimator=0).sel(parameter=name)
        want = naive(problem, estimator, [0, 2, 5], 12, name)
        # estimate gives float32 directions: their lengths, not their products, set the scale of its rounding
        scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
        assert np.abs(found - want).max() <= (1e-12 if exact else 1e-6) * scale.min()
        last = ds["sqnorm"].isel(estimator=0, copies=-1).sel(parameter=name)
        assert np.array_equal(np.diag(found), last)
        assert np.array_equal(found, found.T)
    assert ds["seed_product"].sel(estimator="bp").isnull().all()
    assert ds["seed_product"].dims == ("estimator", "parameter", "seed", "other_seed")


def test_their_mean_over_pairs_has_no_bias() -> None:
    """On a quadratic the mean direction of LR is the gradient, so X_cross must estimate |g|^2."""
    ds = gp.probe(linear_problem(), ["lr"], copies=2, block=2, seeds=200)
    p = ds["seed_product"].isel(estimator=0).sum("parameter").values
    others = ~np.eye(200, dtype=bool)
    cross = p[others].mean()
    pseudo = (p * others).sum(1) / 199  # leave-one-out means: their spread is half of the U-statistic's
    error = 2 * pseudo.std() / np.sqrt(200)
    truth = float(ds["reference_sqnorm"].isel(reference=0, estimator=0, seed=0).sum())
    assert abs(cross - truth) < 4 * error
    assert np.diag(p).mean() - truth > 4 * error


def test_directory_and_memory_agree_and_scratch_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ds = gp.probe(classifier(), ["lr", "alr", Shaky()], out=out, **SMALL)
    equal(ds, gp.probe(classifier(), ["lr", "alr", Shaky()], **SMALL))
    assert list((out / "sums").iterdir()) == []
    assert len(list((out / "products").iterdir())) == 3  # two layers, and the own estimator
    assert read_info(out).configuration["keep"] == "products"


@pytest.mark.parametrize("keep", ["products", "sums"])
def test_seeds_that_are_added_later(keep: str, tmp_path: Path) -> None:
    out, options = tmp_path / "run", {"copies": 8, "block": 4, "keep": keep}
    gp.probe(classifier(), ["lr", "alr"], out=out, seeds=[0, 1], **options)
    ds = gp.probe(classifier(), ["lr", "alr"], out=out, seeds=[0, 1, 2, 3], **options)
    once = gp.probe(classifier(), ["lr", "alr"], seeds=4, **options)
    if keep == "sums":
        equal(ds, once)
        return
    together = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    equal(ds, once.assign(seed_product=once["seed_product"].where(together)))


def test_readouts_that_are_added_later(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, **SMALL)
    ds = gp.probe(classifier(), ["lr", "alr"], out=out, **SMALL)
    equal(ds, gp.probe(classifier(), ["lr", "alr"], **SMALL))


def test_products_are_of_the_last_copies_of_both(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], out=out, copies=8, block=4, seeds=3)
    ds = gp.probe(classifier(), ["lr"], out=out, copies=12, block=4, seeds=[0, 1])
    known = ds["seed_product"].sel(estimator="lr").notnull().all("parameter").values
    assert known.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    whole = gp.probe(classifier(), ["lr"], copies=12, block=4, seeds=2)
    assert np.array_equal(ds["seed_product"][..., :2, :2], whole["seed_product"])


EXTENDED = [
    (["lr", "alr", "es", "hybrid(es_layers=1)"], {}),
    (["lr(injection=joint)", "es(antithetic=True)", "bp"], {}),
    ([Shaky()], {}),
    (["lr", "alr", "es(injection=joint)"], {"reference": "smoothed", "reference_copies": 8}),
]


@pytest.mark.parametrize(("estimators", "options"), EXTENDED)
def test_more_copies_go_on_from_kept_sums_to_the_same_bits(
    estimators: list, options: dict, tmp_path: Path
) -> None:
    options = options | {"block": 4, "seeds": 2}
    out = tmp_path / "run"
    gp.probe(classifier(), estimators, copies=8, out=out, keep="sums", **options)
    with counted() as computed:
        ds = gp.probe(classifier(), estimators, copies=24, out=out, keep="sums", **options)
    assert set(computed) == {2, 3, 4, 5}
    equal(ds, gp.probe(classifier(), estimators, copies=24, **options))
    kept = list((out / "sums").iterdir())
    assert len(kept) * 4 == len(computed)  # one for each unit: those of 8 copies are gone
    with counted() as computed:
        gp.probe(classifier(), estimators, copies=28, out=out, **options)  # the run remembers what it keeps
    assert set(computed) == {6}


def test_sums_of_several_requests_go_on_together(tmp_path: Path) -> None:
    out, options = tmp_path / "run", {"block": 4, "seeds": 2}
    for names in (["lr"], ["lr", "alr"], ["aes", "es"]):
        gp.probe(classifier(), names, copies=8, out=out, keep="sums", **options)
    names = ["lr", "alr", "es"]
    with counted() as computed:
        ds = gp.probe(classifier(), names, copies=12, out=out, keep="sums", **options)
    assert set(computed) == {2}
    once = gp.probe(classifier(), names, copies=12, **options)
    equal(ds.sel(estimator=names), once)


@pytest.mark.parametrize("then", [{"reference_copies": 12}, {"estimators": ["lr", "alr"]}])
def test_sums_that_do_not_fit_are_left_alone(then: dict, tmp_path: Path) -> None:
    common = {"estimators": ["lr"], "reference": "smoothed", "reference_copies": 8, "block": 4, "seeds": 2}
    out = tmp_path / "run"
    gp.probe(classifier(), out=out, copies=8, keep="sums", **common)
    with counted() as computed:
        ds = gp.probe(classifier(), out=out, copies=12, keep="sums", **(common | then))
    assert set(computed) == {0, 1, 2}
    equal(ds, gp.probe(classifier(), copies=12, **(common | then)))


def test_without_kept_sums_more_copies_are_computed_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=2, out=out)
    with counted() as computed:
        ds = gp.probe(classifier(), ["lr"], copies=12, block=4, seeds=2, out=out)
    assert set(computed) == {0, 1, 2}
    equal(ds, gp.probe(classifier(), ["lr"], copies=12, block=4, seeds=2))


def test_sums_of_more_copies_than_are_wanted_are_of_no_use(tmp_path: Path) -> None:
    out = tmp_path / "run"
    gp.probe(classifier(), ["lr"], copies=12, block=4, seeds=2, out=out, keep="sums")
    for file in (out / "units").iterdir():
        file.unlink()
    ds = gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=2, out=out).isel(copies=[0, 1])
    equal(ds, gp.probe(classifier(), ["lr"], copies=8, block=4, seeds=2))


def test_moments_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ds = gp.probe(classifier(), ["lr"], out=out, keep="moments", **SMALL)
    assert ds["seed_product"].isnull().all()
    assert not (out / "sums").exists()
    assert not (out / "products").exists()
    assert "without_products" not in ds.attrs


def test_what_would_take_too_much_room_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradprobe.report.tables import notes

    # lr and alr, 3 seeds: 18 entries of the last layer fit, 25 of the first no more
    monkeypatch.setattr(keep_file, "SCRATCH", 8 * 2 * 3 * 18)
    out = tmp_path / "run"
    ds = gp.probe(classifier(), ["lr", "alr"], out=out, **SMALL)
    known = ds["seed_product"].notnull().all(["estimator", "seed", "other_seed"])
    assert known.values.tolist() == [False, False, True, True]
    assert ds["seed_product"].sel(parameter="first.bias").isnull().all()
    for label in ("lr", "alr"):
        assert any(note.startswith(f"{label}: no products of seeds for first: ") for note in notes(ds))
    monkeypatch.undo()
    assert gp.open_run(out).attrs["without_products"] == '{"alr":["first"],"lr":["first"]}'
    later = gp.probe(classifier(), ["lr", "alr"], out=out, **(SMALL | {"copies": 16}))
    assert later["seed_product"].notnull().all()
    assert "without_products" not in later.attrs


def test_sums_are_kept_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_file, "SCRATCH", 0)
    options = {"out": tmp_path / "run", "block": 4, "seeds": 2, "keep": "sums"}
    gp.probe(classifier(), ["lr"], copies=8, **options)
    with counted() as computed:
        ds = gp.probe(classifier(), ["lr"], copies=12, **options)
    assert set(computed) == {2}
    assert ds["seed_product"].isnull().all()


OTHERS = [
    {"estimators": ["lr"]},
    {"estimators": ["lr", "alr"]},
    {"estimators": ["lr", "alr"], "seeds": 3, "copies": 24},
    {"estimators": ["alr"], "copies": 24},
    {"estimators": ["lr", "aes"], "seeds": [2, 3, 4]},
    {"estimators": ["aes"], "keep": "moments"},
    {"estimators": ["lr", "alr"], "keep": "sums"},
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("at", [12, 36, 40, 64])
def test_another_request_in_between_takes_nothing_away(other: dict, at: int, tmp_path: Path) -> None:
    """Two processes in one directory, put into one: the other one runs from begin to end between two blocks."""
    out, names = tmp_path / "run", ["lr", "alr"]

    def press(done: int, total: int, label: str) -> None:
        if done == at:
            gp.probe(classifier(), out=out, **(SMALL | other))

    gp.probe(classifier(), names, out=out, progress=press, **SMALL)
    ds, more = gp.open_run(out), SMALL | other
    assert ds["seed_product"].sel(estimator=names, seed=[0, 1, 2], other_seed=[0, 1, 2]).notnull().all()
    alone = gp.probe(classifier(), **more)
    if more["copies"] > SMALL["copies"]:
        seeds, labels = alone["seed"].values, alone["estimator"].values
        found = ds["seed_product"].sel(estimator=labels, seed=seeds, other_seed=seeds)
        xr.testing.assert_equal(found.drop_attrs(), alone["seed_product"].drop_attrs())
    if other.get("keep") != "sums":
        assert list((out / "sums").iterdir()) == []
    assert list((out / "partial").iterdir()) == []


def test_a_seed_that_failed_has_no_products() -> None:
    from tests.probes.test_probe import probe_unlucky

    _, ds = probe_unlucky(0.0)
    known = ds["seed_product"].isel(estimator=0).notnull().all(["seed", "other_seed"])
    assert dict(zip(known["parameter"].values, known.values, strict=True)) == {
        "first.weight": False,
        "first.bias": False,
        "last.weight": True,
        "last.bias": True,
    }


def test_products_that_are_lost_are_nan(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ds = gp.probe(classifier(), ["lr"], out=out, **SMALL)
    for file in (out / "products").iterdir():
        file.write_bytes(file.read_bytes()[:-200])
    equal(gp.open_run(out), ds.assign(seed_product=ds["seed_product"] * np.nan))
    gp.probe(classifier(), ["lr"], out=out, **SMALL)


def test_a_stop_in_memory_has_products_of_the_seeds_that_are_whole() -> None:
    import signal

    def press(done: int, total: int, label: str) -> None:
        if done == 2 * 2 * 12 + 4:
            signal.raise_signal(signal.SIGINT)

    ds = gp.probe(classifier(), ["lr"], progress=press, **SMALL)
    two = gp.probe(classifier(), ["lr"], **(SMALL | {"seeds": 2}))
    xr.testing.assert_equal(
        ds["seed_product"].sel(seed=[0, 1], other_seed=[0, 1]).drop_attrs(),
        two["seed_product"].drop_attrs(),
    )
    assert ds["seed_product"].sel(seed=2).isnull().all()


@pytest.mark.parametrize("keep", ["sum", "product", "Moment"])
def test_a_careless_keep_is_one_sentence(keep: str, tmp_path: Path) -> None:
    near = {"sum": "sums", "product": "products", "Moment": "moments"}[keep]
    with pytest.raises(gp.UsageError, match=f"unknown keep '{keep}'. Did you mean '{near}'") as caught:
        gp.probe(classifier(), ["lr"], out=tmp_path / "run", keep=keep, **SMALL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
