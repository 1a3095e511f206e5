"""The figure of shared-out copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from tests.problems_tiny import classifier


@pytest.fixture(scope="module")
def allocated() -> xr.Dataset:
    ds = gp.probe(classifier(), ["lr", "es", "bp"], copies=12, block=4, seeds=3, per_sample=True)
    return gp.stats.allocate(ds, draws=20)


def test_gains_and_intervals_are_where_the_statistic_has_them(allocated: xr.Dataset) -> None:
    left, right = gp.plots.allocation(allocated).axes
    heights = [y for line in left.lines if line.get_marker() in ("o", "s") for y in line.get_ydata()]
    own = allocated.sel(allocator="neyman", estimator=["lr", "es"])
    assert np.allclose(heights, own["gain"].values.ravel())
    ends = [segment[:, 1] for lines in left.collections for segment in lines.get_segments()]
    assert np.allclose([e[1] for e in ends], own["gain_high"].values.ravel())
    shares = [line.get_ydata() for line in right.lines if line.get_marker() in ("o", "s")]
    assert np.allclose(shares, np.exp(np.log(own["allocated"] / 12).mean("layer")))


def test_it_is_saved_with_its_numbers_and_says_what_it_assumes(allocated: xr.Dataset, tmp_path: Path) -> None:
    figure = gp.plots.allocation(allocated, save=tmp_path / "figure")
    record = json.loads((tmp_path / "figure.json").read_text())
    assert np.allclose(record["gain"], allocated["gain"].sel(estimator=["lr", "es"]).values)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "12 copies for each of 8 samples" in figure.gradprobe_caption
    assert "each sample's own" in figure.gradprobe_caption


def test_what_cannot_be_drawn_is_refused(allocated: xr.Dataset) -> None:
    with pytest.raises(gp.UsageError, match=r"gp.stats.allocate\(ds\)"):
        gp.plots.allocation(allocated.drop_vars("gain"))
    with pytest.raises(gp.UsageError, match="over='layer'"):
        gp.plots.allocation(allocated.isel(layer=0))
    with pytest.raises(gp.UsageError, match="at least two seeds"):
        gp.plots.allocation(allocated.sel(estimator=["bp"]))
