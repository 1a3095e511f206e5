"""Runs of every past schema must open and give the numbers that they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gradprobe as gp
from gradprobe.store.schema import SCHEMA_VERSION, View

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS = sorted(path for path in FIXTURES.glob("run-schema-*") if path.is_dir())


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_old_runs_open(run: Path) -> None:
    ds = gp.open_run(run)
    want = json.loads(run.with_suffix(".json").read_text())
    law = gp.stats.alignment(ds, products=False)
    assert np.allclose(gp.stats.cosine(ds), np.array(want["cosine"], dtype=float), atol=1e-8, equal_nan=True)
    assert np.allclose(law["gain"], np.array(want["gain"], dtype=float), atol=1e-8, equal_nan=True)
    assert law["state"].values.tolist() == want["state"]
    products = np.array(want.get("seed_product", np.nan), dtype=float)
    assert np.allclose(ds["seed_product"], products, atol=1e-8, equal_nan=True)


def test_other_noise_is_not_added_to(tmp_path: Path) -> None:
    """The first schema's runs are of the first noise version: they open, and nothing is mixed into them."""
    from tests.problems_tiny import classifier

    out = tmp_path / "run"
    shutil.copytree(RUNS[0], out)
    with pytest.raises(gp.UsageError, match="another noise_version"):
        gp.probe(classifier(), ["aes", "lr"], copies=20, block=4, seeds=4, reference_copies=8, out=out)


@pytest.mark.parametrize("run", RUNS[1:], ids=lambda path: path.name)
def test_every_one_can_be_added_to(run: Path, tmp_path: Path) -> None:
    """Identity, keys and noise are what they were when the fixture was made."""
    from tests.problems_tiny import classifier

    out = tmp_path / "run"
    shutil.copytree(run, out)
    old = gp.open_run(out)
    ds = gp.probe(classifier(), ["aes", "lr"], copies=20, block=4, seeds=4, reference_copies=8, out=out)
    assert list(ds.estimator.values) == [*old.estimator.values, "aes"]
    fresh = gp.probe(classifier(), ["lr"], copies=20, block=4, seeds=4)
    assert np.allclose(
        ds["dot"].sel(estimator="lr", reference="bp"),
        fresh["dot"].sel(estimator="lr", reference="bp"),
        rtol=1e-4,
    )
    known = ds["seed_product"].sel(estimator="lr", parameter="first.bias").notnull()
    kept = old["seed_product"].sel(estimator="lr").notnull().all()
    assert known.sel(seed=3, other_seed=3)
    assert bool(known.sel(seed=0, other_seed=1)) == bool(kept)
    assert not known.sel(seed=0, other_seed=3)  # the sums of seed 0 are gone
    assert ds["seed_product"].sel(estimator="aes").notnull().all()


def test_there_is_a_run_of_the_schema_of_today() -> None:
    assert RUNS[-1].name == f"run-schema-{SCHEMA_VERSION}"


def test_a_derivative_has_no_sigma() -> None:
    for source, sigma in {
        "draw(injection=layerwise, measure=derivative, sigma=1.0, where=weights)": np.nan,
        "draw(injection=joint, measure=derivative, sigma=1.0, where=weights) over a, b": np.nan,
        "draw(injection=layerwise, sigma=1.0, where=weights)": 1.0,
    }.items():
        view = View("m", {"a": (source, "")}, {}, True, "exact", "#000000", "")
        np.testing.assert_equal(view.sigma, sigma)
