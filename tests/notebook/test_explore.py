from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import gradprobe as gp
from gradprobe.notebook.picture import Picture
from gradprobe.notebook.ranges import Ranges
from tests.notebook.pages import Page, rows_of
from tests.notebook.test_runs import HOSTILE, a_run
from tests.problems_tiny import classifier
from tests.synthetic import Truth

RANGES = [(16, 320), (64, 192), (160, 320), (304, 320), (320, 320)]


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """With a reference that is noisy, a layer that is refused, and a method that ends early."""
    methods = {
        "exact": Truth(kappa=40.0),
        "biased": Truth(rho=0.6, kappa=40.0),
        "short": Truth(blocks=12),
        "picky": Truth(refused=("conv2",), missing=(3,)),
        "fixed": Truth(rho=0.8, stochastic=False),
    }
    return a_run(estimators=methods, noisy_blocks=8)


def by_stats(ds: xr.Dataset, copies: tuple[int, int], layer: str | None, reference: str) -> dict[str, Any]:
    """The same numbers by the public statistics."""
    chosen: dict[str, Any] = {"over": "model" if layer is None else "layer", "reference": reference}
    few = sum(copies[0] <= n <= copies[1] for n in ds["copies"].values) < 3
    found = {"accuracy": gp.stats.accuracy(ds, copies, **chosen).mean("seed")}
    nothing = found["accuracy"] * np.nan
    found["stability"] = nothing if few else gp.stats.stability(ds, copies, **chosen).mean("seed")
    found["floor"] = nothing if few else gp.stats.stability_floor(ds, copies, **chosen)
    law = gp.stats.alignment(ds, **chosen)
    found |= {name: law[name] for name in ("ceiling", "ceiling_low", "ceiling_high", "state")}
    return {name: (v if layer is None else v.sel(layer=layer)).values for name, v in found.items()}


@pytest.mark.parametrize("reference", ["bp", "smoothed"])
@pytest.mark.parametrize("layer", [None, "conv1", "conv2"])
def test_numbers_of_a_range_are_those_of_the_statistics(
    ds: xr.Dataset, layer: str | None, reference: str
) -> None:
    ranges = Ranges(ds, reference)
    for copies in RANGES:
        found, truth = ranges.numbers(*copies, layer), by_stats(ds, copies, layer, reference)
        assert list(found.pop("state")) == list(truth.pop("state"))
        assert found.keys() == truth.keys()
        for name, values in truth.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=f"{name} {copies}")


def test_controls_change_what_is_shown(ds: xr.Dataset) -> None:
    view = gp.explore(ds)
    assert view.layer.value is None
    assert view.reference.value == "bp"
    assert list(view.table.index) == list(ds["estimator"].values)
    view.layer.value, view.reference.value = "conv2", "smoothed"
    view.methods.value, view.copies.value = ("biased", "exact"), (64, 192)
    truth = by_stats(ds, (64, 192), "conv2", "smoothed")
    for place, method in enumerate(ds["estimator"].values[:2]):
        for name in ("accuracy", "stability", "floor"):
            assert view.table.loc[method, name] == pytest.approx(truth[name][place], rel=1e-12)
    rows = rows_of(view._numbers.value)
    assert set(rows) == {"biased", "exact"}
    assert float(rows["exact"]["Acc."]) == pytest.approx(truth["accuracy"][0], abs=6e-4)
    assert "conv2 · 64 to 192 copies · reference smoothed" in Page(view._numbers.value).text


def test_a_range_of_two_points_says_what_sta_needs(ds: xr.Dataset) -> None:
    view = gp.explore(ds)
    view.copies.value = (304, 320)
    assert "Sta. needs 3 stored points" in Page(view._numbers.value).text
    assert rows_of(view._numbers.value)["exact"]["Sta."] == ""


def test_a_range_between_stored_points_is_a_sentence(ds: xr.Dataset) -> None:
    view = gp.explore(ds.sel(copies=[16, 160, 320]))
    view.copies.value = (32, 64)
    assert "hold 0 stored points" in Page(view._numbers.value).text


def test_no_method_is_a_sentence_and_not_an_error(ds: xr.Dataset) -> None:
    view = gp.explore(ds)
    view.methods.value = ()
    assert "choose at least one method." in Page(view._numbers.value).text
    view.methods.value = ("exact",)
    assert "exact" in rows_of(view._numbers.value)


def test_every_control_has_a_name_and_the_picture_a_text(ds: xr.Dataset) -> None:
    view = gp.explore(ds)
    for control in (view.layer, view.methods, view.copies, view.reference):
        assert control.description
        assert control.tooltip
    view.layer.value = "fc"
    assert 'alt="Cosine with bp against copies, layer fc, 16 to 320 copies marked."' in view._panel.value


def test_the_picture_marks_the_range(ds: xr.Dataset) -> None:
    picture = Picture(ds, "fc", ["exact"], "bp")
    plain, marked = picture.marked(16, 320).astype(int), picture.marked(64, 192).astype(int)
    box, (high, wide) = picture._axes.get_position(), plain.shape[:2]
    row = slice(int((1 - box.y1) * high) + 4, int((1 - box.y0) * high) - 4)
    scale = np.log(np.array([64, 192]) * 1.12 / 16) / np.log(320 * 1.12**2 / 16)  # limits of the axis
    low, up = (int(v) for v in (box.x0 + scale * box.width) * wide)
    outside = np.r_[int(box.x0 * wide) + 8 : low - 4, up + 4 : int(box.x1 * wide) - 8]
    assert (marked[row, outside] >= plain[row, outside]).all()
    assert (marked[row, outside] > plain[row, outside]).any()
    assert (marked[row, low + 4 : up - 4] == plain[row, low + 4 : up - 4]).all()
    assert (marked[row, low - 3 : low + 3] == 110).all(-1).all(0).any()
    assert (marked[: row.start - 8] == plain[: row.start - 8]).all()


def test_the_picture_is_shown_at_half_its_dots(ds: xr.Dataset) -> None:
    view = gp.explore(ds)
    data = re.search(r"base64,([^\"]+)", view._panel.value)
    width = re.search(r'width="(\d+)"', view._panel.value)
    assert data
    assert width
    image = Image.open(io.BytesIO(base64.b64decode(data[1])))
    assert image.width == pytest.approx(2 * int(width[1]), abs=1)


def test_runs_side_by_side_are_chosen(tmp_path: Path) -> None:
    problem = classifier()
    more = [(problem.inputs + 1, problem.target)]
    ds = gp.probe(problem, ["lr"], copies=40, seeds=3, batches=more, out=tmp_path / "run")
    view = gp.explore(tmp_path / "run")
    view.places["batch"].value = 1
    one = gp.stats.accuracy(ds.isel(batch=1), over="model").mean("seed")
    assert view.table.loc["lr", "accuracy"] == pytest.approx(float(one.sel(estimator="lr")), rel=1e-12)


def test_names_are_escaped() -> None:
    ds = a_run(layers={HOSTILE: 20}, estimators={HOSTILE: Truth()}, seeds=3, blocks=4)
    view = gp.explore(ds)
    view.layer.value = HOSTILE
    tags = Page(view._numbers.value).tags + Page(view._panel.value).tags
    assert "script" not in tags
    assert tags.count("img") == 1


def test_the_panel_can_be_saved(ds: xr.Dataset, tmp_path: Path) -> None:
    view = gp.explore(ds)
    view.layer.value, view.methods.value = "fc", ("exact",)
    figure = view.figure(save=tmp_path / "panel")
    assert {f.name for f in tmp_path.iterdir()} == {"panel.png", "panel.pdf", "panel.json"}
    assert figure.gradprobe_record["arguments"]["layers"] == ["fc"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"run": 3}, "explore needs what gp.probe or gp.open_run returns"),
        ({"run": "nowhere"}, "nowhere is not a gradprobe run"),
        ({"reference": "backprop"}, "unknown reference 'backprop'"),
        ({"run": xr.Dataset()}, "explore needs a whole run"),
        ({"path": True}, "this needs the results of gp.probe(...), not the path of gp.descend"),
    ],
)
def test_bad_input_gets_one_sentence(ds: xr.Dataset, given: dict[str, Any], said: str) -> None:
    if given.pop("path", False):
        given["run"] = gp.descend("beale", ["bp"], steps=2, seeds=1, lr=1e-3)
    with pytest.raises(gp.UsageError) as caught:
        gp.explore(**({"run": ds} | given))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_ipywidgets_the_way_out_is_named(ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *rest: Any) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("gradprobe.core.optional.importlib.import_module", absent)
    with pytest.raises(gp.UsageError, match=r'pip install "gradprobe\[explore\]"'):
        gp.explore(ds)
