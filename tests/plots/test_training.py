"""The figure of training shows the numbers of ``stats`` at each checkpoint, and no number where there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

import gradprobe as gp
from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots._style import PaperFigure
from tests.synthetic import LAYERS, Truth, make_run

EPOCHS = [0, 1, 3, 10, 30]
KAPPAS = [10.0, 30.0, 100.0, 300.0, 1e6]


def run(i: int, kappa: float, **options: Any) -> xr.Dataset:
    truths = {
        "lr": Truth(1.0, kappa),
        "alr": Truth(0.8, 2 * kappa, missing=(4,) if i == 1 else ()),
        "es": Truth(1.0, 5 * kappa, refused=("conv1",)),
        "bp": Truth(kappa=0.0, stochastic=False),
    }
    return make_run(np.random.default_rng(i), estimators=truths, products=True, **options)


@pytest.fixture(scope="module")
def runs() -> list[xr.Dataset]:
    return [run(i, kappa) for i, kappa in enumerate(KAPPAS)]


@pytest.fixture(scope="module")
def ds(runs: list[xr.Dataset]) -> xr.Dataset:
    return gp.concat(runs, labels=EPOCHS)


def of_kind(axes: Axes, kind: str) -> list[Any]:
    return [a for a in axes.get_children() if (a.get_gid() or "").split(" ")[0] == kind]


def shown(figure: PaperFigure, layer: str, method: str) -> dict[str, Any]:
    panel = next(p for p in figure.gradprobe_record["panels"] if p["name"] == layer)
    return next(m for m in panel["methods"] if m["estimator"] == method)


def numbers(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], dtype=float)


def test_cosines_are_those_of_each_run_alone(runs: list[xr.Dataset], ds: xr.Dataset) -> None:
    figure = plots.training(ds, copies=160)
    for method in ("lr", "alr", "es", "bp"):
        for layer in (*LAYERS, "model"):
            found = shown(figure, layer, method)
            over = "model" if layer == "model" else "layer"
            for at, one in enumerate(runs):
                bands = stats.bands(stats.cosine(one, over).sel(copies=160, estimator=method))
                bands = bands if over == "model" else bands.sel(layer=layer)
                for key, name in (("value", "mean"), ("low", "low"), ("high", "high")):
                    np.testing.assert_equal(numbers(found[key])[at], float(bands[name]))


@pytest.mark.parametrize("quantity", ["ceiling", "half_copies", "price"])
def test_quantities_of_the_law_are_those_of_each_run_alone(
    runs: list[xr.Dataset], ds: xr.Dataset, quantity: str
) -> None:
    figure = plots.training(ds, quantity)
    for at, one in enumerate(runs):
        law = stats.alignment(one).sel(estimator="lr", layer="fc")
        found = shown(figure, "fc", "lr")
        assert found["state"][at] == str(law["state"].values)
        np.testing.assert_equal(numbers(found["low"])[at], float(law[f"{quantity}_low"]))
        value = float(law[quantity])
        if quantity == "price" and not np.isfinite(law["price_high"]):
            value = np.nan
        np.testing.assert_equal(numbers(found["value"])[at], value)


def test_what_is_not_resolved_is_no_mark_and_no_line(ds: xr.Dataset) -> None:
    figure = plots.training(ds, "ceiling", estimators=["lr"], layers=["fc"], model=False)
    (axis,) = figure.axes
    (line,) = of_kind(axis, "value")
    found = shown(figure, "fc", "lr")
    assert found["state"][-1] == "unresolved"
    assert np.isnan(line.get_ydata()[-1])
    (bounds,) = of_kind(axis, "bounds")
    ends = np.array(bounds.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends[-1], [max(found["low"][-1], axis.get_ylim()[0]), found["high"][-1]])
    (intervals,) = of_kind(axis, "interval")
    resolved = np.isfinite(line.get_ydata())
    assert len(intervals.get_segments()) == resolved.sum()
    assert len(bounds.get_segments()) == (~resolved).sum()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "lr",
        "95 % interval",
        "not resolved: bounds",
    ]


def test_numbers_lie_to_scale_and_names_one_after_the_other(runs: list[xr.Dataset], ds: xr.Dataset) -> None:
    line = of_kind(plots.training(ds, estimators=["lr"]).axes[0], "value")[0]
    assert line.get_xdata().tolist() == EPOCHS
    mixed = gp.concat([runs[2], runs[0], runs[1]], labels=[3, 0, 1])
    line = of_kind(plots.training(mixed, estimators=["lr"]).axes[0], "value")[0]
    assert line.get_xdata().tolist() == [0, 1, 3]
    odd = gp.concat(runs[:3], labels=["$early$", "<late>", "a name that is rather too long to be shown"])
    figure = plots.training(odd, width="single")
    axis = figure.axes[-1]
    assert of_kind(axis, "value")[0].get_xdata().tolist() == [0, 1, 2]
    figure.draw_without_rendering()
    texts = [t.get_text() for t in axis.get_xticklabels()]
    assert texts[0] == r"\$early\$"
    assert "…" in texts[2]


def test_along_sigma(tmp_path: Path) -> None:
    from tests.problems_tiny import classifier

    sweep = gp.sigma_sweep(classifier(), ["lr", "es"], (0.01, 0.1, 1.0), copies=16, block=4, seeds=3)
    ds = gp.concat([sweep], "sigma")
    figure = plots.training(ds, save=tmp_path / "sigma")
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert of_kind(axis, "value")[0].get_xdata().tolist() == [0.01, 0.1, 1.0]
    expected = stats.cosine(sweep).sel(copies=16, estimator="es(sigma=0.1)", layer="last").mean("seed")
    assert shown(figure, "last", "es")["value"][1] == float(expected)
    record = json.loads((tmp_path / "sigma.json").read_text())
    assert [r["sigma"] for r in record["runs"]] == [0.01, 0.1, 1.0]
    assert (tmp_path / "sigma.png").exists()


def test_the_record_names_checkpoints_by_file_not_by_place(runs: list[xr.Dataset]) -> None:
    placed = [
        one.assign_attrs(
            configuration=json.dumps({"checkpoint": f"/somewhere/epoch-{i}.pt"}),
            problem=f"net, /somewhere/epoch-{i}.pt, digits",
        )
        for i, one in enumerate(runs[:2])
    ]
    record = plots.training(gp.concat(placed), estimators=["lr"], layers=["fc"]).gradprobe_record
    assert "somewhere" not in json.dumps(record)
    assert record["runs"][1]["configuration"]["checkpoint"] == "epoch-1.pt"


def test_methods_keep_colour_and_marker_and_refusals_are_named(ds: xr.Dataset) -> None:
    figure = plots.training(ds)
    first = figure.axes[0]
    notes = " ".join(t.get_text() for t in of_kind(first, "note"))
    assert "es: refused" in notes
    alone = plots.training(ds, estimators=["es"], layers=["fc"])
    looks = [
        (line.get_color(), line.get_marker())
        for f in (figure, alone)
        for line in of_kind(f.axes[-1], "value")
        if line.get_gid() == "value m2"
    ]
    assert len(set(looks)) == 1
    assert "backprop" in figure.gradprobe_caption
    assert "320 copies" in figure.gradprobe_caption


def test_a_method_without_noise_has_no_price(ds: xr.Dataset) -> None:
    panel = plots.training(ds, "price").gradprobe_record["panels"][0]
    assert [m["estimator"] for m in panel["methods"]] == ["lr", "alr", "es"]
    with pytest.raises(UsageError, match="nothing to draw"):
        plots.training(ds, "price", estimators=["bp"])


def test_the_legend_covers_no_panel(ds: xr.Dataset) -> None:
    figure = plots.training(ds, "half_copies", width="single")
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert all(not legend.overlaps(axis.get_window_extent()) for axis in figure.axes)


def test_many_layers_and_methods_are_drawn_in_time() -> None:
    layers = {f"blocks.{i}.attention.weight": 16 for i in range(100)}
    truths = {f"m{i}": Truth(1.0, 20.0 * (i + 1)) for i in range(4)}
    runs = [
        make_run(np.random.default_rng(i), layers=layers, estimators=truths, seeds=3, blocks=4)
        for i in range(2)
    ]
    start = time.process_time()
    figure = plots.training(gp.concat(runs, labels=[1, 2]))
    assert len(figure.axes) == 101
    assert time.process_time() - start < 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantity": "bias"}, "unknown quantity 'bias'"),
        ({"estimators": ["no"]}, "unknown estimator"),
        ({"layers": ["no*"]}, "no"),
        ({"copies": 7}, "copies=7 is not stored"),
        ({"reference": "smoothed"}, "unknown reference"),
        ({"xscale": "log"}, "positive numbers, and checkpoint 0"),
        ({"xscale": "cubic"}, "unknown xscale"),
        ({"layers": [], "model": False}, "nothing to draw"),
        ({"scale": "no"}, "unknown scale"),
    ],
)
def test_bad_options_are_one_sentence(ds: xr.Dataset, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        plots.training(ds, **options)
    assert "\n" not in str(caught.value)


def test_one_run_is_no_training(runs: list[xr.Dataset]) -> None:
    with pytest.raises(UsageError, match="gp.concat"):
        plots.training(runs[0])
    with pytest.raises(UsageError, match="a str"):
        plots.training("run")
