"""The figure of data and copies shows the numbers of ``stats.data_or_copies`` and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots._style import PaperFigure
from tests.stats.batched import make_batches
from tests.synthetic import LAYERS, Truth, make_run

METHODS = {
    "bp": Truth(kappa=0.0, stochastic=False),
    "lr": Truth(kappa=40.0),
    "alr": Truth(rho=0.8, kappa=60.0, gain=0.3),
    "es": Truth(kappa=80.0, refused=("fc",)),
    "lost": Truth(kappa=1e7),
}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return make_batches(np.random.default_rng(1), METHODS, batches=5, noise=0.7, dataset=400).ds


@pytest.fixture(scope="module")
def figure(ds: xr.Dataset) -> PaperFigure:
    return plots.data_or_copies(ds)


def of_kind(axes: Axes, kind: str) -> list:
    return [a for a in axes.get_children() if a.get_gid() == kind]


def panels(ds: xr.Dataset) -> list[xr.Dataset]:
    found = stats.data_or_copies(ds)
    return [*(found.sel(layer=name) for name in LAYERS), stats.data_or_copies(ds, "model")]


def test_lines_are_the_variances_of_copies(ds: xr.Dataset, figure: PaperFigure) -> None:
    last = int(ds["copies"][-1])
    for axes, values in zip(figure.axes, panels(ds), strict=True):
        lines = {line.get_label(): line for line in of_kind(axes, "copies")}
        known = {e for e in METHODS if e != "bp" and np.isfinite(values["copies_variance"].sel(estimator=e))}
        assert set(lines) == known
        for label, line in lines.items():
            one = float(values["copies_variance"].sel(estimator=label))
            x, y = line.get_xdata(), line.get_ydata()
            np.testing.assert_allclose(y, one / np.asarray(x))
            assert x[-1] <= last
            assert line.get_color() == str(ds["color"].sel(estimator=label).values)
        for line in of_kind(axes, "beyond"):
            assert line.get_xdata()[0] == last


def test_marks_are_the_crossings_with_their_intervals(ds: xr.Dataset, figure: PaperFigure) -> None:
    for axes, values in zip(figure.axes, panels(ds), strict=True):
        share = float(values["data_share"])
        (line,) = of_kind(axes, "share")
        assert set(line.get_ydata()) == {share}
        (band,) = of_kind(axes, "data")
        extent = band.get_extents().transformed(axes.transData.inverted())
        assert (extent.y0, extent.y1) == pytest.approx(
            (float(values["data_share_low"]), float(values["data_share_high"]))
        )
        known = values["crossover"].sel(estimator=[e for e in METHODS if e != "bp"]).dropna("estimator")
        marks = sorted(float(a.get_xdata()[0]) for a in of_kind(axes, "crossover"))
        np.testing.assert_allclose(marks, np.sort(known.values))
        met = [(float(a.get_xdata()[0]), float(a.get_ydata()[0])) for a in of_kind(axes, "meeting")]
        assert sorted(met) == [(n, share) for n in marks]
        for a in of_kind(axes, "interval"):
            low, high = a.get_xdata()
            place = np.flatnonzero(np.isclose(values["crossover_low"], low))
            assert place.size
            assert high == pytest.approx(min(float(values["crossover_high"][place[0]]), axes.get_xlim()[1]))


def test_what_is_missing_is_said(figure: PaperFigure) -> None:
    texts = ["\n".join(t.get_text() for t in of_kind(axes, "note")) for axes in figure.axes]
    assert all("lost: variance" in text for text in texts)
    assert ["es: refused" in text for text in texts] == [False, False, True, False]
    names = {t.get_text() for t in figure.legends[0].get_texts()}
    assert names == {"lr", "alr", "es", "lost", "data", "95 % interval"}
    assert "from 5 batches" in figure.gradprobe_caption


def test_one_batch_with_a_data_set_has_no_interval_of_the_data(ds: xr.Dataset) -> None:
    figure = plots.data_or_copies(ds.isel(batch=0), estimators="lr", model=False)
    assert not any(of_kind(axes, "data") or of_kind(axes, "interval") for axes in figure.axes)
    assert all(of_kind(axes, "share") and of_kind(axes, "crossover") for axes in figure.axes)
    assert "1 batch: no interval for the data" in figure.gradprobe_caption


def test_files_hold_all_numbers(ds: xr.Dataset, tmp_path: Path) -> None:
    figure = plots.data_or_copies(ds, scale="unit-gain", save=tmp_path / "data")
    record = json.loads((tmp_path / "data.json").read_text())
    assert record["caption"] == figure.gradprobe_caption
    assert [p["name"] for p in record["panels"]] == [*LAYERS, "model, unit gain"]
    found = stats.data_or_copies(ds)
    method = record["panels"][0]["methods"][0]
    for name, value in (("crossover", "crossover"), ("variance_low", "copies_variance_low")):
        assert method[name] == pytest.approx(float(found[value].sel(layer="conv1", estimator="lr")))
    assert record["panels"][0]["data_share"] == pytest.approx(float(found["data_share"].sel(layer="conv1")))
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", ".pdf", ".json"}


def test_many_layers_do_not_overlap() -> None:
    layers = {f"encoder.layers.{i}.attention": 16 for i in range(30)}
    truth = {f"m{i}": Truth(kappa=20.0) for i in range(6)}
    made = make_batches(
        np.random.default_rng(2), truth, batches=3, noise=0.5, layers=layers, blocks=4, seeds=1
    )
    figure = plots.data_or_copies(made.ds)
    assert len(figure.axes) == 31
    figure.draw_without_rendering()
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # not public
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": "gain"}, "unknown scale"),
        ({"estimators": "lrr"}, "Did you mean 'lr'"),
        ({"layers": "conv9"}, "unknown layer"),
        ({"estimators": "bp"}, "an estimator with noise"),
        ({"layers": [], "model": False}, "nothing to draw"),
    ],
)
def test_bad_choices_get_one_sentence(ds: xr.Dataset, options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        plots.data_or_copies(ds, **options)
    assert "\n" not in str(caught.value)


def test_a_run_of_one_batch_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="probe with batches=8"):
        plots.data_or_copies(make_run(np.random.default_rng(0)))
