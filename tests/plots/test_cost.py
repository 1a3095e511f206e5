"""The cost figure: what it draws, judged by its structure and by the numbers of gradprobe.stats."""

from __future__ import annotations

import json
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
from tests.synthetic import Truth, make_run

METHODS = {
    "bp": Truth(stochastic=False),
    "lr": Truth(kappa=60.0),
    "alr": Truth(rho=0.7, kappa=20.0),
    "es": Truth(kappa=600.0),
}
PRICES = {"bp": 3.0, "lr": 0.2, "alr": 0.2, "es": 1.0}


def priced(ds: xr.Dataset) -> xr.Dataset:
    """The run with another price for each method; that of backprop is for its one evaluation."""
    scale = [PRICES[str(e)] / (16 if str(e) == "bp" else 1) for e in ds["estimator"].values]
    return ds.assign(equivalents=ds["equivalents"] * xr.DataArray(scale, dims="estimator"))


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return priced(make_run(np.random.default_rng(1), estimators=METHODS))


@pytest.fixture(scope="module")
def figure(ds: xr.Dataset) -> Figure:
    return plots.cost(ds)


def drawn(axes: Axes, kind: str) -> list:
    return [a for a in axes.get_children() if str(a.get_gid()).split(" m")[0] == kind]


def mean_of(axes: Axes, label: str):
    return next((line for line in drawn(axes, "mean") if line.get_label() == label), None)


def law_of(axes: Axes, label: str):
    return next(line for line in drawn(axes, "law") if line.get_label() == f"_law of {label}")


def notes(axes: Axes) -> str:
    return "\n".join(t.get_text() for t in drawn(axes, "note"))


def test_measured_lines_are_the_mean_cosines_at_what_their_copies_cost(
    ds: xr.Dataset, figure: Figure
) -> None:
    assert [a.get_title(loc="left").partition(" ")[0] for a in figure.axes] == [
        "conv1",
        "conv2",
        "fc",
        "model",
    ]
    for over, panels in (("layer", figure.axes[:3]), ("model", figure.axes[3:])):
        mean = stats.cosine(ds, over).mean("seed")
        for i, axes in enumerate(panels):
            for label in ("lr", "alr", "es"):
                line = mean_of(axes, label)
                want = mean.sel(estimator=label)
                want = want.isel(layer=i) if over == "layer" else want
                np.testing.assert_allclose(line.get_ydata(), want)
                np.testing.assert_allclose(line.get_xdata(), ds["copies"] * PRICES[label])


def test_the_law_goes_on_where_the_run_ends(ds: xr.Dataset, figure: Figure) -> None:
    law = stats.alignment(ds)
    for i, axes in enumerate(figure.axes[:3]):
        for label in ("lr", "alr", "es"):
            x, y = (np.asarray(v) for v in law_of(axes, label).get_data())
            end = 320 * PRICES[label]
            assert x[0] <= end * (1 + 1e-9)  # no gap
            assert x[1] > end
            assert x[-1] <= 3200.0 * 1.01
            want = stats.predict(law, list(x / PRICES[label])).cosine.sel(estimator=label).isel(layer=i)
            np.testing.assert_allclose(y, np.clip(want, -1, 1))


def test_the_frontier_has_the_colour_of_the_best_method(ds: xr.Dataset, figure: Figure) -> None:
    axes = figure.axes[2]
    bands = [*drawn(axes, "frontier"), *drawn(axes, "frontier, unresolved")]
    assert bands
    for band in bands:
        costs = np.asarray(band.get_xdata())
        at = stats.frontier(ds, costs=costs).sel(layer="fc")
        inside = slice(0, len(costs) - 1) if len(costs) > 1 else slice(None)  # it ends where the next begins
        (best,) = set(at.best.values[inside].tolist())
        assert band.get_color() == str(ds["color"].sel(estimator=best).values)
        np.testing.assert_allclose(band.get_ydata(), np.clip(at.best_cosine, -1, 1), rtol=1e-9)
        assert (at.resolved.values[inside] == (band.get_gid().split(" m")[0] == "frontier")).all()
    seen = {band.get_color() for band in bands}
    assert seen == {str(ds["color"].sel(estimator=e).values) for e in ("lr", "alr")}


def test_backprop_is_a_line_from_what_it_costs_on(figure: Figure) -> None:
    for axes in figure.axes:
        x, y = mean_of(axes, "bp").get_data()
        low, high = axes.get_xlim()
        assert x[0] == 3.0
        assert low < x[-1] <= high
        np.testing.assert_allclose(y, 1.0)


@pytest.mark.parametrize("against", ["copies", "seconds", "forwards"])
def test_other_costs(ds: xr.Dataset, against: str) -> None:
    figure = plots.cost(ds, against=against, layers="fc", model=False)
    price = 1.0 if against == "copies" else float(stats.cost(ds)[against].sel(estimator="es", layer="fc"))
    np.testing.assert_allclose(mean_of(figure.axes[0], "es").get_xdata(), ds["copies"] * price)
    names = {"copies": "copies", "seconds": "Seconds", "forwards": "Forward passes"}
    assert names[against] in figure._supxlabel.get_text()


def test_what_is_missing_is_said() -> None:
    truths = {
        "lr": Truth(refused=("fc",)),
        "es": Truth(missing=(0, 1, 2)),
        "alr": Truth(rho=0.7),
        "bp": METHODS["bp"],
    }
    ds = make_run(np.random.default_rng(2), estimators=truths, seeds=3)
    figure = plots.cost(ds, against="copies")
    assert "lr: refused" in notes(figure.axes[2])
    assert all("es: missing" in notes(a) for a in figure.axes)
    assert "1 layer refused" in notes(figure.axes[3])


def test_a_method_that_costs_more_than_is_shown_says_what_it_costs() -> None:
    ds = make_run(np.random.default_rng(2), estimators={"lr": Truth(), "bp": METHODS["bp"]}, seeds=3)
    dear = ds.assign(equivalents=ds["equivalents"] * xr.DataArray([1e-6, 1.0], dims="estimator"))
    axes = plots.cost(dear, layers="fc", model=False).axes[0]
    assert mean_of(axes, "bp") is None
    assert "bp: costs 16" in notes(axes)


def test_awkward_runs_are_drawn() -> None:
    rng = np.random.default_rng(3)
    alone = plots.cost(make_run(rng, estimators={"bp": METHODS["bp"]}, seeds=2))
    assert not any(drawn(a, "frontier") or drawn(a, "law") for a in alone.axes)
    one_seed = plots.cost(make_run(rng, seeds=1))
    assert all(drawn(a, "frontier, unresolved") and not drawn(a, "frontier") for a in one_seed.axes)
    assert "one seed" in one_seed.gradprobe_caption
    one_block = plots.cost(make_run(rng, estimators=METHODS, seeds=3, blocks=1))
    assert not any(drawn(a, "law") or drawn(a, "frontier") for a in one_block.axes)
    assert mean_of(one_block.axes[0], "bp").get_xdata()[0] == 16.0
    for found in (alone, one_seed, one_block):
        found.draw_without_rendering()


def test_joint_injection_is_said(ds: xr.Dataset) -> None:
    assert (
        "joint injection" in plots.cost(ds, layers="fc").gradprobe_caption
    )  # synthetic units serve all layers
    own = ds.copy(deep=True)
    own["booked_on"].values[:] = ds["parameter"].values
    for name in ("forwards", "equivalents", "seconds"):
        own[name] = own[name].max("parameter").broadcast_like(own[name]).transpose(*own[name].dims)
    for changed, options in ((own, {}), (ds, {"against": "copies"}), (ds, {"layers": []})):
        assert "joint injection" not in plots.cost(changed, **options).gradprobe_caption


def test_only_chosen_methods_compete(ds: xr.Dataset) -> None:
    axes = plots.cost(ds, estimators=["es", "alr"], layers="conv1", model=False).axes[0]
    colors = {band.get_color() for band in (*drawn(axes, "frontier"), *drawn(axes, "frontier, unresolved"))}
    assert colors <= {str(ds["color"].sel(estimator=e).values) for e in ("es", "alr")}
    assert mean_of(axes, "lr") is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"against": "flops"}, "against"),
        ({"scale": "big"}, "scale"),
        ({"estimators": "nothing"}, "estimator"),
        ({"layers": "nothing"}, "layer"),
        ({"estimators": []}, "nothing to draw"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(ds: xr.Dataset, wrong: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        plots.cost(ds, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", ["double", "single"])
def test_nothing_covers_anything(width: str) -> None:
    layers = {f"encoder.layers.{i}.attention.{k}": 16 for i in range(3) for k in ("query", "output.dense")}
    figure = plots.cost(
        priced(make_run(np.random.default_rng(9), layers=layers, estimators=METHODS, seeds=3)), width=width
    )
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    boxes = [a.get_tightbbox(renderer) for a in figure.axes]
    boxes.append(figure.legends[0].get_window_extent(renderer))
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            overlap = (
                min(one.x1, other.x1) - max(one.x0, other.x0),
                min(one.y1, other.y1) - max(one.y0, other.y0),
            )
            assert min(overlap) <= 1.0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1 + 1


def test_files_and_no_trace(ds: xr.Dataset, tmp_path: Path) -> None:
    before = {k: v for k, v in mpl.rcParams.items() if k != "backend"}
    figure = plots.cost(ds, layers="fc", save=tmp_path / "cost")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cost.json", "cost.pdf", "cost.png"]
    data = json.loads((tmp_path / "cost.json").read_text(encoding="utf-8"))
    assert data == figure.gradprobe_record
    panel = data["panels"][0]
    front = stats.frontier(ds)
    start, end = panel["leads"]["lr"]
    assert start == pytest.approx(float(front.leads_from.sel(estimator="lr", layer="fc")), rel=1e-6)
    assert end <= 3200.0 * 1.001
    assert plt.get_fignums() == []
    assert {k: v for k, v in mpl.rcParams.items() if k != "backend"} == before
