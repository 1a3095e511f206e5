"""Levels of noise in a run: their reference, their place beside weights, and what reports make of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import gradprobe as gp
from gradprobe.cli import app
from gradprobe.report.text import show
from gradprobe.store.levels import level_mask, levels_beside, weights_part

OPTIONS = {"copies": 80, "seeds": 5, "sigma": 0.5}
LEVELS = "noise-level(antithetic=True)"


def small() -> gp.Problem:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return gp.Problem(net, (torch.randn(6, 4, generator=generator), torch.arange(6) % 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("levels")


@pytest.fixture(scope="module")
def alone(folder: Path) -> xr.Dataset:
    return gp.probe(small(), LEVELS, out=folder / "alone", **OPTIONS)


@pytest.fixture(scope="module")
def plain() -> xr.Dataset:
    return gp.probe(small(), ["lr", "es"], reference=("bp", "smoothed"), **OPTIONS)


@pytest.fixture(scope="module")
def mixed(folder: Path) -> xr.Dataset:
    return gp.probe(small(), ["lr", "es", LEVELS], out=folder / "mixed", **OPTIONS)


def test_levels_alone_ask_for_the_smoothed_reference(alone):
    assert alone["reference"].values.tolist() == ["bp", "smoothed"]
    assert alone["parameter"].values.tolist() == ["0.sigma", "2.sigma"]
    assert alone["level_of"].values.tolist() == ["0", "2"]
    assert alone["numel"].values.tolist() == [1, 1]
    assert (alone["status"] == "ok").all()


def test_backprop_knows_no_level(alone):
    """The loss without noise does not hold sigma: its derivative is 0 and angles with it are undefined."""
    assert (alone["reference_sqnorm"].sel(reference="bp") == 0).all()
    assert gp.stats.cosine(alone).isnull().all()
    assert set(gp.stats.alignment(alone)["state"].values.ravel()) == {"undefined"}
    assert np.isfinite(gp.stats.cosine(alone, reference="smoothed")).all()


@pytest.mark.parametrize("reference", ["bp", "smoothed"])
def test_whole_model_numbers_are_those_of_weights(mixed, plain, reference):
    for over in ("model", {"all": ["*"], "first": "0*"}):
        both = gp.stats.alignment(mixed, over, reference)
        own = gp.stats.alignment(plain, over, reference)
        for name in ("A", "X", "T", "G", "price", "gain"):
            np.testing.assert_array_equal(both[name].values[:2], own[name].values)
        assert set(both["state"].values[2].ravel()) == {"refused"}
    np.testing.assert_array_equal(
        gp.stats.cost(mixed, "model")["forwards"][:2], gp.stats.cost(plain, "model")["forwards"]
    )
    assert gp.stats.coverage(mixed).values.tolist() == [1.0, 1.0, 0.0]


def test_a_group_of_levels_alone_is_their_sum(mixed, alone):
    found = gp.stats.alignment(mixed, {"levels": "*.sigma"}, "smoothed")
    own = gp.stats.alignment(alone, "model", "smoothed")
    for name in ("A", "X", "T", "G"):
        np.testing.assert_allclose(found[name].values[2, 0], own[name].values[0], rtol=1e-12)


def test_weights_and_levels_refuse_each_other_in_one_sentence(mixed):
    refused = json.loads(mixed.attrs["refused"])
    assert set(refused["lr(sigma=0.5)"]) == {"0.sigma", "2.sigma"}
    assert set(refused["noise-level(antithetic=True, sigma=0.5)"]) == {"0", "2"}
    assert all("\n" not in why for own in refused.values() for why in own.values())


def test_taking_the_parts_apart(mixed, plain):
    weights, levels = weights_part(mixed), levels_beside(mixed)
    assert weights["estimator"].values.tolist() == plain["estimator"].values.tolist()
    assert not level_mask(weights).any()
    assert weights.attrs["refused"] == "{}"
    assert level_mask(levels).all()
    assert levels.sizes["estimator"] == 1
    assert weights_part(plain) is plain
    assert levels_beside(plain) is None


def test_a_run_takes_levels_and_weights_one_after_the_other(folder, mixed, plain):
    path = folder / "later"
    gp.probe(small(), ["lr", "es"], out=path, **OPTIONS)
    gp.probe(small(), LEVELS, out=path, **OPTIONS)
    again = gp.probe(small(), "alr", out=path, **OPTIONS)
    assert again["parameter"].values.tolist() == mixed["parameter"].values.tolist()
    mine = again.sel(estimator=mixed["estimator"].values)
    np.testing.assert_array_equal(mine["sqnorm"], mixed["sqnorm"])
    assert '"layers":' in again.attrs["configuration"]
    assert "sigma" not in str(again.attrs["configuration"]).partition('"layers":')[2].partition("]")[0]


def test_levels_go_to_workers(folder, alone):
    found = gp.probe(small(), LEVELS, out=folder / "crew", workers=1, **OPTIONS)
    np.testing.assert_allclose(found["dot"], alone["dot"], rtol=1e-5)


def test_reports_of_levels_beside_weights(folder, mixed):
    out = folder / "report"
    result = CliRunner().invoke(app, ["report", str(folder / "mixed"), "--out", str(out), "--html"])
    assert result.exit_code == 0, result.output
    assert {"levels.csv", "levels.png", "similarity.png"} <= {f.name for f in out.iterdir()}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Levels of noise" in page
    assert "2.sigma" in page
    found = gp.verdict(mixed)
    assert any(line.startswith("Levels of noise are no part") for line in found.lines)
    assert not any("noise-level" in line for line in found.lines if "whole model" in line)
    assert found.table.set_index("over").loc["layer", "layer"].isin(["0", "2", "0.sigma", "2.sigma"]).all()


def test_reports_of_levels_alone(alone):
    """Everything is held against the smoothed gradient by itself, and says so."""
    console = Console(record=True, width=200, file=io.StringIO())
    show(alone, console)
    text = console.export_text()
    assert "These are levels of noise" in text
    assert "held against smoothed" in text
    assert "undefined" not in text


def test_the_similarity_figure_shows_one_kind_at_a_time(mixed, alone):
    def titles(figure) -> str:
        return " ".join(axis.get_title(loc) for axis in figure.axes for loc in ("left", "center"))

    assert "sigma" not in titles(gp.plots.similarity(mixed))
    assert "1 level" in titles(gp.plots.similarity(mixed, layers="*.sigma", width="double"))
    figure = gp.plots.similarity(alone)
    assert figure.gradprobe_record["arguments"]["reference"] == "smoothed"
    assert "how often the sign is right" in " ".join(figure.gradprobe_caption.split())


def test_plans_are_for_weights(mixed, alone):
    plan = gp.plan(mixed, cosine=0.5)
    assert {layer.layer for layer in plan.layers} == {"0", "2"}
    with pytest.raises(gp.UsageError, match="plans are for weights"):
        gp.plan(alone, cosine=0.5)


def test_per_sample_leaves_levels_out():
    ds = gp.probe(small(), ["lr", LEVELS], per_sample=True, copies=20, seeds=2, sigma=0.5)
    levels = level_mask(ds)
    assert np.isfinite(ds["sample_sqnorm"].values[0][~levels]).all()
    assert np.isnan(ds["sample_sqnorm"].values[1][levels]).all()


def test_estimate_gives_the_derivative_of_each_level():
    found = gp.estimate(small(), "noise-level(per=neuron)", copies=20, sigma=0.5)
    assert {name: tuple(v.shape) for name, v in found.items()} == {"0.sigmas": (5,), "2.sigmas": (3,)}
    assert all(v.dtype == torch.float32 for v in found.values())
