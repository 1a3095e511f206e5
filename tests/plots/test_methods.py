"""The figure of all methods shows the statistics of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from tests.synthetic import Truth, make_run


@pytest.fixture(scope="module")
def run():
    truths = {
        "lr": Truth(1.0, 40.0),
        "alr": Truth(0.7, 40.0),
        "es": Truth(1.0, 1e6),
        "fa": Truth(0.5, 0.0, stochastic=False),
    }
    return make_run(np.random.default_rng(0), estimators=truths, blocks=20)


def test_points_are_ceilings_and_prices(run):
    figure = plots.methods({"a": run, "b": run}, against="copies")
    law = stats.alignment(run)
    names = [str(x) for x in law["layer"].values]
    assert [x.get_title(loc="left") for x in figure.axes] == [f"{n}, {r}" for r in "ab" for n in names]
    for axis, layer in zip(figure.axes, names * 2, strict=True):
        for label in ("lr", "alr"):
            (point,) = (x for x in axis.get_lines() if x.get_gid() == label)
            cell = law.sel(estimator=label, layer=layer)
            assert str(cell["state"].values) == "resolved"
            np.testing.assert_allclose(point.get_data(), [[cell["price"]], [cell["ceiling"]]])
            assert point.get_markerfacecolor() == point.get_color()


def test_methods_without_noise_stand_left_of_all_prices(run):
    for axis in plots.methods(run).axes:
        (fixed,) = (x for x in axis.get_lines() if x.get_gid() == "fa")
        (wall,) = (x for x in axis.get_lines() if x.get_linestyle() == ":")
        others = [x.get_xdata()[0] for x in axis.get_lines() if x.get_gid() in ("lr", "alr", "es")]
        assert axis.get_xlim()[0] < fixed.get_xdata()[0] < wall.get_xdata()[0] < min(others)


def test_bounds_are_open_and_what_is_unknown_is_left_out(run):
    law = stats.alignment(run).sel(estimator="es")
    for axis, layer in zip(plots.methods(run).axes, law["layer"].values, strict=True):
        cell, points = law.sel(layer=layer), [x for x in axis.get_lines() if x.get_gid() == "es"]
        assert str(cell["state"].values) != "resolved"
        assert len(points) == int(cell["ceiling_low"] > 0)
        for point in points:
            assert point.get_markerfacecolor() == "white"
            np.testing.assert_allclose(point.get_ydata(), cell["ceiling_low"])


def test_the_legend_has_the_order_of_the_run_though_the_first_layer_lacks_its_first_method():
    truths = {"es": Truth(refused=("a",)), "fa": Truth(0.5, 0.0, stochastic=False)}
    run = make_run(np.random.default_rng(0), layers={"a": 16, "b": 16}, estimators=truths)
    (legend,) = plots.methods(run).legends
    assert [x.get_text() for x in legend.get_texts()] == ["es", "fa"]


def test_price_is_in_forward_passes(run, tmp_path: Path):
    plots.methods(run, save=tmp_path / "methods")
    table = json.loads((tmp_path / "methods.json").read_text())["runs"][""]["table"]
    law, each = stats.alignment(run), stats.cost(run)["equivalents"]
    for label, layer, price in zip(table["estimator"], table["layer"], table["price"], strict=True):
        at = {"estimator": label, "layer": layer}
        np.testing.assert_allclose(price, float(law["price"].sel(at) * each.sel(at)))
    assert "Left of the dotted line" in plots.methods(run).gradprobe_caption
    assert "dotted" not in plots.methods(run, estimators=["lr", "alr"]).gradprobe_caption


def test_bad_input_is_one_sentence(run):
    with pytest.raises(UsageError, match="results by name"):
        plots.methods({})
    with pytest.raises(UsageError, match="against"):
        plots.methods(run, against="seconds")
