"""The figures of noise and bias show the numbers of stats, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots._parts import LOOKS
from tests.stats.test_against_sigma import labelled, swept
from tests.synthetic import LAYERS, Truth, make_run

METHODS = {
    "bp": Truth(kappa=0.0, stochastic=False),
    "lr": Truth(kappa=60.0),
    "alr": Truth(rho=0.8, kappa=90.0),
    "es": Truth(kappa=20_000.0, refused=("conv2",)),
}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return make_run(np.random.default_rng(4), estimators=METHODS, noisy_blocks=8, reference_noise=0.05)


@pytest.fixture(scope="module")
def figure(ds: xr.Dataset) -> Figure:
    return plots.noise_or_bias(ds)


def of_kind(axes: Axes, kind: str) -> list:
    return [a for a in axes.get_children() if str(a.get_gid()).split(" m")[0] == kind]


def test_one_group_per_layer_and_one_for_the_model(figure: Figure) -> None:
    titles = [a.get_title(loc="left").replace("\n", " · ") for a in figure.axes]
    assert titles == ["conv1 · 60 weights", "conv2 · 120 weights", "fc · 200 weights", "model · 380 weights"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(METHODS)
    assert len({a.get_xlim() for a in figure.axes}) == 1
    assert "n = 320 copies" in figure.get_supxlabel()


def test_segments_are_the_parts_and_end_at_the_total(ds: xr.Dataset, figure: Figure) -> None:
    parts = [stats.decompose(ds, 320).sel(layer=x) for x in LAYERS] + [stats.decompose(ds, 320, "model")]
    for axes, want in zip(figure.axes, parts, strict=True):
        ends = np.zeros(len(METHODS))
        for part in LOOKS:
            for bar in of_kind(axes, part):
                place = round(bar.get_y() + bar.get_height() / 2)
                value = want["value"].sel(part=part).isel(estimator=place).item()
                assert bar.get_width() == pytest.approx(value)
                edge = bar.get_x() + (bar.get_width() if value < 0 else 0)  # towards the axis
                assert edge * np.sign(value) >= -1e-12
                ends[place] += value
        total = want["value"].sel(part="total").values
        marks = {round(np.mean(m.get_ydata())): m.get_xdata()[0] for m in of_kind(axes, "mark")}
        assert marks == pytest.approx({i: t for i, t in enumerate(total) if np.isfinite(t)})
        np.testing.assert_allclose(ends, np.nan_to_num(total), atol=1e-12)


def test_what_is_not_told_apart_is_hatched_and_what_is_missing_is_named(figure: Figure) -> None:
    for axes in figure.axes[:3]:
        hatched = {b.get_gid().split(" m")[0] for b in axes.patches if b.get_hatch()}
        refused = [t.get_text() for t in of_kind(axes, "note")]
        assert (hatched, refused) == (
            (set(), ["refused"]) if axes is figure.axes[1] else ({"noise + encoding"}, [])
        )
    texts = {t.get_text() for t in figure.legends[0].get_texts()}
    assert {"noise", "bias of the encoding", "noise or encoding", "total, 95 %"} <= texts
    assert "Hatched" in figure.gradprobe_caption


def test_negative_parts_lie_left_of_zero() -> None:
    """A reference that is not g: its own angle is charged to smoothing, and given back by encoding."""
    ds = make_run(np.random.default_rng(0), kappa=5.0, noisy_blocks=8, reference_noise=0.001)
    turned = ds.copy(deep=True)
    turned["reference_dot"].loc[{"reference": "smoothed"}] *= 0.9
    figure = plots.noise_or_bias(turned)
    for axes in figure.axes:
        (bar,) = of_kind(axes, "encoding")
        assert bar.get_width() < 0
        assert bar.get_x() == pytest.approx(0)
        assert axes.get_xlim()[0] < bar.get_width()


def test_files_hold_the_numbers(ds: xr.Dataset, tmp_path: Path) -> None:
    figure = plots.noise_or_bias(
        ds, copies=1000, layers="conv*", estimators="lr,alr", save=tmp_path / "parts"
    )
    record = json.loads((tmp_path / "parts.json").read_text())
    assert record["caption"] == figure.gradprobe_caption
    assert "the run ends at 320 copies" in record["caption"]
    assert [g["name"] for g in record["groups"]] == ["conv1", "conv2", "model"]
    want = stats.decompose(ds, 1000)["value"].sel(layer="conv1", estimator="alr")
    got = record["groups"][0]["methods"][1]
    assert got["parts"]["encoding"] == pytest.approx(want.sel(part="encoding").item())
    assert got["total_value"] == pytest.approx(want.sel(part="total").item())
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", ".pdf", ".json"}


def test_the_sweep_s_lines_and_windows_are_those_of_stats(tmp_path: Path) -> None:
    ds = swept(2)
    figure = plots.sigma_sweep(ds, copies=200, tolerance=0.05, save=tmp_path / "sweep")
    layer = stats.against_sigma(ds, 200, tolerance=0.05)
    found = [layer.sel(layer=x) for x in LAYERS] + [stats.against_sigma(ds, 200, "model", 0.05)]
    for axes, want in zip(figure.axes, found, strict=True):
        for i, method in enumerate(["lr", "es"]):
            one = want.sel(estimator=method)
            total = one["value"].sel(part="total")
            line = of_kind(axes, "total")[i]
            np.testing.assert_array_equal(line.get_ydata(), total.values[np.isfinite(total)])
            np.testing.assert_array_equal(line.get_xdata(), total["sigma"].values[np.isfinite(total)])
            assert line.get_color() == str(one["color"].values)
            np.testing.assert_array_equal(
                of_kind(axes, "smoothing")[i].get_ydata(), one["value"].sel(part="smoothing").values
            )
            ends = [float(one[k]) for k in ("window_low", "window_high")]
            np.testing.assert_array_equal(of_kind(axes, "window")[i].get_xdata(), ends)
            assert of_kind(axes, "best")[i].get_xdata()[0] == float(one["best"])
            assert of_kind(axes, "window")[i].get_ydata()[0] < 0
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert record["panels"][0]["methods"][0]["best"] == float(found[0]["best"].sel(estimator="lr"))
    assert "lose at most 0.05" in record["caption"]


def test_theory_is_a_grey_line_of_the_weights_of_each_panel(ds: xr.Dataset) -> None:
    figure = plots.similarity(ds, theory=True)
    for axes, d in zip(figure.axes, [*LAYERS.values(), sum(LAYERS.values())], strict=True):
        (line,) = of_kind(axes, "theory")
        n = np.asarray(line.get_xdata(), dtype=float)
        np.testing.assert_allclose(line.get_ydata(), np.sqrt(n / (n + d + 1)))
        assert (n[0], n[-1]) == (16, 320)
    assert "random directions, theory" in [t.get_text() for t in figure.legends[0].get_texts()]
    assert "sqrt(n/(n + D + 1))" in figure.gradprobe_caption
    assert len(figure.gradprobe_record["panels"][0]["theory"]["cosine"]) > 5
    plain = plots.similarity(ds)
    assert not of_kind(plain.axes[0], "theory")
    assert "theory" not in plain.gradprobe_record["panels"][0]


def test_careless_figures_get_one_sentence(ds: xr.Dataset) -> None:
    one = labelled(make_run(np.random.default_rng(0), noisy_blocks=4))
    for draw, words in (
        (lambda: plots.noise_or_bias(make_run(np.random.default_rng(0))), "needs both references"),
        (lambda: plots.noise_or_bias(ds, copies=0), "copies must be a positive number"),
        (lambda: plots.noise_or_bias(ds, layers="conv9"), "unknown layer"),
        (lambda: plots.noise_or_bias(ds, scale="unit"), "unknown scale"),
        (lambda: plots.noise_or_bias(ds, estimators=[]), "nothing to draw"),
        (lambda: plots.sigma_sweep(one), "more than one sigma"),
        (lambda: plots.sigma_sweep(swept(), methods="lrr"), "Did you mean 'lr'"),
        (lambda: plots.sigma_sweep(swept(), methods=[]), "nothing to draw"),
        (lambda: plots.sigma_sweep(swept(), methods=3), "a name or a list of names"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            draw()
        assert "\n" not in str(caught.value)
