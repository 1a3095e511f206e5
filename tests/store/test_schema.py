"""Runs of every past schema must open and give the numbers that they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gradprobe as gp

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("run", sorted(FIXTURES.glob("run-schema-*/")), ids=lambda path: path.name)
def test_old_runs_open(run: Path) -> None:
    ds = gp.open_run(run)
    want = json.loads(run.with_suffix(".json").read_text())
    law = gp.stats.alignment(ds)
    assert np.allclose(gp.stats.cosine(ds), np.array(want["cosine"], dtype=float), atol=1e-8, equal_nan=True)
    assert np.allclose(law["gain"], np.array(want["gain"], dtype=float), atol=1e-8, equal_nan=True)
    assert law["state"].values.tolist() == want["state"]


def test_the_newest_can_be_added_to(tmp_path: Path) -> None:
    """Identity, keys and noise are what they were when the fixture was made."""
    from tests.problems_tiny import classifier

    out = tmp_path / "run"
    shutil.copytree(sorted(FIXTURES.glob("run-schema-*/"))[-1], out)
    old = gp.open_run(out)
    ds = gp.probe(classifier(), ["aes", "lr"], copies=20, block=4, seeds=4, reference_copies=8, out=out)
    assert list(ds.estimator.values) == [*old.estimator.values, "aes"]
    fresh = gp.probe(classifier(), ["lr"], copies=20, block=4, seeds=4)
    assert np.allclose(
        ds["dot"].sel(estimator="lr", reference="bp"),
        fresh["dot"].sel(estimator="lr", reference="bp"),
        rtol=1e-4,
    )
