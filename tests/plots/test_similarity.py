"""The similarity figure: what it draws, judged by its structure and by the numbers of gradprobe.stats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots._layout import columns
from tests.synthetic import LAYERS, Truth, make_run

METHODS = {
    "bp": Truth(kappa=0.0, stochastic=False),
    "lr": Truth(kappa=60.0),
    "alr": Truth(rho=0.8, kappa=90.0, gain={"conv1": 0.1, "conv2": 0.5, "fc": 1.0}),
    "es": Truth(kappa=300.0),
}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return make_run(np.random.default_rng(1), estimators=METHODS)


@pytest.fixture(scope="module")
def figure(ds: xr.Dataset) -> Figure:
    return plots.similarity(ds)


def drawn(axes: Axes, kind: str) -> list:
    return [a for a in axes.get_children() if str(a.get_gid()).split(" m")[0] == kind]


def mean_of(axes: Axes, label: str):
    return next(line for line in drawn(axes, "mean") if line.get_label() == label)


def law_of(axes: Axes, label: str):
    return next(line for line in drawn(axes, "law") if line.get_label() == f"_law of {label}")


def notes(axes: Axes) -> str:
    return "\n".join(t.get_text() for t in drawn(axes, "note"))


def legend_texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.legends[0].get_texts()]


def test_one_panel_per_layer_in_execution_order_and_one_for_the_model(figure: Figure) -> None:
    titles = [a.get_title(loc="left").replace("\n", " · ") for a in figure.axes]
    assert titles == [
        "conv1 · 60 weights",
        "conv2 · 120 weights",
        "fc · 200 weights",
        "model · 380 weights",
    ]


def test_axes_say_what_they_show_and_share_their_range(figure: Figure) -> None:
    assert figure.get_supylabel().replace("\n", " ") == "Cosine similarity with backprop"
    assert figure.get_supxlabel() == "Monte-Carlo copies $n$"
    assert len({a.get_xlim() + a.get_ylim() for a in figure.axes}) == 1
    assert figure.axes[0].get_xscale() == "log"


def test_colours_are_the_data_s_in_every_panel(ds: xr.Dataset, figure: Figure) -> None:
    for axes in figure.axes:
        for label, color in zip(ds["estimator"].values, ds["color"].values, strict=True):
            assert mean_of(axes, label).get_color() == color


def test_methods_differ_by_marker_too(figure: Figure) -> None:
    looks = {
        (line.get_marker(), line.get_markerfacecolor() == "white")
        for line in drawn(figure.axes[0], "mean")
        if line.get_label() != "bp"
    }
    assert len(looks) == 3
    assert mean_of(figure.axes[0], "alr").get_markerfacecolor() == "white"


@pytest.mark.parametrize("over", ["layer", "model"])
def test_lines_and_bands_are_those_of_stats(ds: xr.Dataset, figure: Figure, over: str) -> None:
    bands = stats.bands(stats.cosine(ds, over=over))
    at = {"layer": "fc"} if over == "layer" else {}
    axes = figure.axes[2 if over == "layer" else 3]
    for label in ds["estimator"].values:
        want = bands.sel(estimator=label, **at)
        np.testing.assert_array_equal(mean_of(axes, label).get_ydata(), want["mean"].values)
        np.testing.assert_array_equal(mean_of(axes, label).get_xdata(), ds["copies"].values)
    areas = drawn(axes, "band")
    assert len(areas) == 3  # not for the deterministic one
    for area, label in zip(areas, ["lr", "alr", "es"], strict=True):
        want = bands.sel(estimator=label, **at)
        y = area.get_paths()[0].vertices[:, 1]
        assert y.min() == want["low"].min()
        assert y.max() == want["high"].max()
        assert matplotlib.colors.to_hex(area.get_facecolor()[0]) == str(want["color"].values)


def test_band_of_standard_deviations(ds: xr.Dataset) -> None:
    figure = plots.similarity(ds, band="std", layers=["fc"], model=False)
    want = stats.bands(stats.cosine(ds)).sel(estimator="lr", layer="fc")
    vertices = drawn(figure.axes[0], "band")[0].get_paths()[0].vertices
    assert vertices[:, 1].max() == (want["mean"] + want["std"]).max()
    assert "± 1 std" in legend_texts(figure)
    assert "one standard deviation, pointwise" in figure.gradprobe_caption


def test_law_is_that_of_predict(ds: xr.Dataset, figure: Figure) -> None:
    law = stats.alignment(ds)
    for label in ("lr", "alr", "es"):
        line = law_of(figure.axes[1], label)
        want = stats.predict(law, [int(n) for n in line.get_xdata()])["cosine"]
        np.testing.assert_array_equal(line.get_ydata(), want.sel(estimator=label, layer="conv2").values)


def test_ceilings_are_marked_where_resolved_and_only_there() -> None:
    methods = {"lr": Truth(rho=0.7, kappa=20.0), "es": Truth(kappa=1e5)}
    ds = make_run(np.random.default_rng(2), estimators=methods, blocks=60)
    law = stats.alignment(ds)
    figure = plots.similarity(ds, model=False)
    for axes, layer in zip(figure.axes, LAYERS, strict=True):
        found = law.sel(layer=layer)
        resolved = found["estimator"].values[found["state"].values == "resolved"]
        assert list(resolved) == ["lr"]
        marks = drawn(axes, "ceiling")
        np.testing.assert_array_equal(marks[0].get_ydata(), [float(found["ceiling"].sel(estimator="lr"))])
        assert len(marks) == 1


def test_without_law(ds: xr.Dataset) -> None:
    figure = plots.similarity(ds, law=False)
    assert not any(drawn(a, "law") + drawn(a, "ceiling") for a in figure.axes)
    assert legend_texts(figure) == ["bp", "lr", "alr", "es", "95 % interval"]


def overlaps(one, other) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


@pytest.mark.parametrize("width", ["double", "single", 5.0])
@pytest.mark.parametrize("reference", ["bp", "smoothed"])
def test_nothing_covers_anything(width: str | float, reference: str) -> None:
    methods = METHODS | {"lr(noise=rademacher, sigma=0.1)": Truth(kappa=80.0, refused=("conv2",))}
    ds = make_run(np.random.default_rng(3), estimators=methods, noisy_blocks=4)
    figure = plots.similarity(ds, width=width, reference=reference)
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    page = figure.bbox
    legend = figure.legends[0].get_window_extent(renderer)
    labels = [t.get_window_extent(renderer) for t in (figure._supxlabel, figure._supylabel)]
    panels = [a.get_tightbbox(renderer) for a in figure.axes]  # with titles, ticks, notes and ceilings
    boxes = [legend, *labels, *panels]
    for i, box in enumerate(boxes):
        assert page.x0 - 1 <= box.x0
        assert box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0
        assert box.y1 <= page.y1 + 1
        assert not any(overlaps(box, other) for other in boxes[:i])
    for axes in figure.axes:
        for note in drawn(axes, "note"):
            extent = note.get_window_extent(renderer)
            assert extent.y0 >= axes.get_window_extent(renderer).y1
            assert not overlaps(extent, axes._left_title.get_window_extent(renderer))


def test_linear_axis(ds: xr.Dataset) -> None:
    assert {a.get_xscale() for a in plots.similarity(ds, xscale="linear").axes} == {"linear"}


def test_unit_gain_is_the_model_s_panel_only(ds: xr.Dataset) -> None:
    figure = plots.similarity(ds, scale="unit-gain")
    assert figure.axes[-1].get_title(loc="left").startswith("model, unit gain")
    model = stats.bands(stats.cosine(ds, over="model", scale="unit-gain")).sel(estimator="alr")
    layer = stats.bands(stats.cosine(ds)).sel(estimator="alr", layer="conv1")
    np.testing.assert_array_equal(mean_of(figure.axes[-1], "alr").get_ydata(), model["mean"].values)
    np.testing.assert_array_equal(mean_of(figure.axes[0], "alr").get_ydata(), layer["mean"].values)


def test_what_is_missing_is_said() -> None:
    methods = {
        "lr": Truth(refused=("conv2",)),
        "alr": Truth(refused=("conv2",)),
        "es": Truth(failed=(0, 1, 2, 3, 4)),
        "aes": Truth(missing=(3, 4)),
        "hybrid": Truth(missing=(0, 1, 2, 3, 4)),
        "late": Truth(blocks=5),
    }
    ds = make_run(np.random.default_rng(4), estimators=methods)
    figure = plots.similarity(ds)
    everywhere = "es: failed\naes: 3 of 5 seeds\nhybrid: missing"
    assert [notes(a) for a in figure.axes] == [
        everywhere,
        f"lr, alr: refused\n{everywhere}",
        everywhere,
        f"lr, alr: 1 layer refused\n{everywhere}",
    ]
    assert [line.get_label() for line in drawn(figure.axes[1], "mean")] == ["aes", "late"]
    assert law_of(figure.axes[0], "late").get_xdata()[-1] == 80
    notes_of = {m["estimator"]: m for m in figure.gradprobe_record["panels"][1]["methods"]}
    assert notes_of["lr"]["note"] == "refused"
    assert set(notes_of["lr"]["mean"]) == {None}


def test_a_run_in_which_nothing_worked() -> None:
    ds = make_run(np.random.default_rng(4), estimators={"lr": Truth(failed=(0, 1, 2, 3, 4))})
    figure = plots.similarity(ds)
    figure.draw_without_rendering()
    assert {notes(a) for a in figure.axes} == {"lr: failed"}


def test_unresolved_gain_is_said() -> None:
    ds = make_run(np.random.default_rng(5), estimators={"es": Truth(kappa=1e7)}, blocks=4)
    assert notes(plots.similarity(ds, scale="unit-gain").axes[-1]) == "es: gain unresolved"


def test_one_seed_has_no_band() -> None:
    ds = make_run(np.random.default_rng(6), estimators=METHODS, seeds=1)
    figure = plots.similarity(ds)
    figure.draw_without_rendering()
    assert not any(drawn(a, "band") for a in figure.axes)
    assert drawn(figure.axes[0], "law")
    assert legend_texts(figure) == ["bp", "lr", "alr", "es", "fitted law"]
    assert "One seed" in figure.gradprobe_caption


@pytest.mark.parametrize("xscale", ["log", "linear"])
def test_one_block_has_no_law(xscale: str) -> None:
    ds = make_run(np.random.default_rng(7), estimators=METHODS, blocks=1)
    figure = plots.similarity(ds, xscale=xscale)
    figure.draw_without_rendering()
    assert not any(drawn(a, "law") for a in figure.axes)
    assert {line.get_marker() for line in drawn(figure.axes[0], "mean")} >= {"o", "s"}
    assert len(drawn(figure.axes[0], "band")) == 3
    assert figure.gradprobe_record["panels"][0]["methods"][1]["state"] is None


def test_equal_curves_are_striped() -> None:
    ds = make_run(np.random.default_rng(8), estimators={"es": Truth(), "hybrid": Truth()})
    for name in ("dot", "sqnorm", "block_sqnorm"):
        ds[name].loc[{"estimator": "hybrid"}] = ds[name].sel(estimator="es")
    axes = plots.similarity(ds).axes[0]
    assert mean_of(axes, "es").get_linestyle() == "-"
    assert mean_of(axes, "hybrid").get_linestyle() == "--"


def test_selection(ds: xr.Dataset, figure: Figure) -> None:
    some = plots.similarity(ds, estimators="es, lr", layers="conv*")
    assert [a.get_title(loc="left").split(" ")[0] for a in some.axes] == ["conv1", "conv2", "model"]
    assert legend_texts(some)[:2] == ["es", "lr"]
    for label in ("es", "lr"):
        one, other = mean_of(some.axes[-1], label), mean_of(figure.axes[-1], label)
        np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
        assert one.get_marker() == other.get_marker()
    assert len(plots.similarity(ds, estimators=["lr"], layers=[]).axes) == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"estimators": "lrr"}, "unknown estimator 'lrr'. Did you mean 'lr'?"),
        ({"layers": ["conv1", "fcc"]}, "unknown layer 'fcc'. Did you mean 'fc'?"),
        ({"xscale": "logarithm"}, "unknown xscale"),
        ({"band": "sd"}, "unknown band"),
        ({"scale": "unit"}, "unknown scale 'unit'. Did you mean 'unit-gain'?"),
        ({"reference": "smooth"}, "unknown reference"),
        ({"width": "doubel"}, "unknown width 'doubel'. Did you mean 'double'?"),
        ({"width": 0.5}, "does not fit a figure"),
        ({"level": 95}, "no probability"),
        ({"layers": [], "model": False}, "nothing to draw"),
        ({"estimators": []}, "nothing to draw"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(ds: xr.Dataset, wrong: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        plots.similarity(ds, **wrong)


def test_many_layers_wrap_into_rows() -> None:
    assert [columns(n, 7.0) for n in (1, 4, 6, 13, 97)] == [1, 4, 3, 4, 6]
    assert [columns(n, 3.4) for n in (1, 6, 30)] == [1, 2, 3]
    layers = {f"encoder.layers.{i}.attention.{k}": 16 for i in range(10) for k in ("query", "output.dense")}
    ds = make_run(np.random.default_rng(9), layers=layers, seeds=3, blocks=4)
    figure = plots.similarity(ds, law=False)
    figure.draw_without_rendering()
    assert len(figure.axes) == 21
    assert figure.get_figheight() > 5
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert len(set(titles)) == 21
    right = max(a._left_title.get_window_extent().x1 for a in figure.axes)
    assert right <= figure.bbox.x1
    assert all(
        not overlaps(a._left_title.get_window_extent(), b._left_title.get_window_extent())
        for a, b in zip(figure.axes, figure.axes[1:], strict=False)
    )


def test_files(ds: xr.Dataset, tmp_path: Path) -> None:
    stem = tmp_path / "new" / "deep" / "run.v1"
    figure = plots.similarity(ds, layers="fc", save=stem)
    names = sorted(p.name for p in stem.parent.iterdir())
    assert names == ["run.v1.json", "run.v1.pdf", "run.v1.png"]
    assert (stem.parent / "run.v1.png").read_bytes().startswith(b"\x89PNG")
    assert (stem.parent / "run.v1.pdf").read_bytes().startswith(b"%PDF")

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    data = json.loads((stem.parent / "run.v1.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert data == figure.gradprobe_record
    assert data["figure"] == "similarity"
    assert data["arguments"]["layers"] == ["fc"]
    assert data["run"]["block"] == 16
    assert "gradprobe" in data["versions"]
    want, law = stats.bands(stats.cosine(ds)).sel(layer="fc"), stats.alignment(ds).sel(layer="fc")
    panel = data["panels"][0]
    assert (panel["name"], panel["numel"]) == ("fc", 200)
    for method in panel["methods"]:
        at = {"estimator": method["estimator"]}
        for name in ("mean", "low", "high"):
            np.testing.assert_array_equal(method[name], want[name].sel(at).values)
        assert method["copies"] == list(ds["copies"].values)
        assert method["state"] == str(law["state"].sel(at).values)
        ceiling = float(law["ceiling"].sel(at))
        assert method["ceiling"] == (ceiling if np.isfinite(ceiling) else None)
        assert method["color"] == str(ds["color"].sel(at).values)


def test_files_are_the_same_again_whatever_the_user_s_settings(ds: xr.Dataset, tmp_path: Path) -> None:
    plots.similarity(ds, layers="fc", save=tmp_path / "a.png")
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "xtick.major.size": 40, "lines.linewidth": 9}):
        plots.similarity(ds, layers="fc", save=tmp_path / "b")
    for ending in ("png", "pdf", "json"):
        one, other = ((tmp_path / f"{n}.{ending}").read_bytes() for n in "ab")
        assert one == other


def test_leaves_no_trace(ds: xr.Dataset) -> None:
    before = {k: v for k, v in mpl.rcParams.items() if k != "backend"}  # reading that one chooses it
    figure = plots.similarity(ds, layers="fc")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert {k: v for k, v in mpl.rcParams.items() if k != "backend"} == before


def test_caption_says_for_what_it_holds(figure: Figure) -> None:
    for part in (
        "pointwise, over 5 seeds",
        "this batch",
        "blocks of 16 copies",
        "backprop",
        "1/sigma",
        "(alr)",
    ):
        assert part in figure.gradprobe_caption


def test_importing_plots_is_light() -> None:
    code = (
        "import sys, gradprobe.plots as p; assert 'similarity' in dir(p); p.PLOTS.entry('similarity');"
        "assert not {'torch', 'matplotlib', 'seaborn'} & set(sys.modules);"
        "p.similarity; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_theory_is_no_measure_of_whole_estimates() -> None:
    ds = make_run(np.random.default_rng(0), estimators={"planned(1a2b)": Truth(), "lr": Truth()})
    ds = ds.assign_coords(whole=("estimator", [True, False]))
    with pytest.raises(UsageError, match=r"planned\(1a2b\) is a whole estimate of many directions"):
        plots.similarity(ds, theory=True)
    plots.similarity(ds, estimators=["lr"], theory=True)
