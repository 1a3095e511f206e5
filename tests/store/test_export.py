from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from tests.problems_tiny import classifier
from tests.synthetic import make_run


def test_nothing_is_lost_order_included(tmp_path: Path) -> None:
    ds = make_run(np.random.default_rng(0))
    back = gp.open_run(gp.export(ds, tmp_path / "x.nc"))
    xr.testing.assert_identical(back, ds)
    assert list(back.data_vars) == list(ds.data_vars)
    assert list(back.coords) == list(ds.coords)
    assert {k: v.dims for k, v in back.variables.items()} == {k: v.dims for k, v in ds.variables.items()}
    assert {k: type(v) for k, v in back.attrs.items()} == {k: type(v) for k, v in ds.attrs.items()}
    xr.testing.assert_identical(gp.stats.alignment(back), gp.stats.alignment(ds))


def test_what_is_no_export_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.nc").write_text("no")
    with pytest.raises(gp.UsageError, match="not a file that gradprobe exported"):
        gp.open_run(tmp_path / "x.nc")
    with pytest.raises(gp.UsageError, match="cannot write"):
        gp.export(make_run(np.random.default_rng(0)), tmp_path / "nowhere" / "x.nc")
    assert [f.name for f in tmp_path.iterdir()] == ["x.nc"]


def test_products_of_seeds_go_there_and_back(tmp_path: Path) -> None:
    ds = gp.probe(classifier(), ["lr", "bp"], copies=8, block=4, seeds=[3, 1])
    back = gp.open_run(gp.export(ds, tmp_path / "x.nc"))
    xr.testing.assert_identical(back, ds)
    assert back["seed_product"].dims == ("estimator", "parameter", "seed", "other_seed")
    assert back["seed_product"].sel(estimator="lr").notnull().all()


def test_an_export_of_schema_1_has_no_products(tmp_path: Path) -> None:
    ds = make_run(np.random.default_rng(0)).drop_vars(["seed_product", "other_seed"])
    ds.attrs["schema_version"] = 1
    back = gp.open_run(gp.export(ds, tmp_path / "x.nc"))
    assert back["seed_product"].isnull().all()
    xr.testing.assert_identical(back.drop_vars(["seed_product", "other_seed"]), ds)
