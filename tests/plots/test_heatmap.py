"""The heat map shows what the statistics have, as a number only where it is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.plots._cells import number
from tests.synthetic import LAYERS, Truth, make_run

TRUTH = {
    "lr": Truth(1.0, 20.0, refused=("conv2",)),
    "alr": Truth(0.6, 60.0),
    "es": Truth(1.0, 1e5),
    "fa": Truth(0.5, 0.0, stochastic=False),
    "gone": Truth(missing=(0, 1, 2, 3, 4)),
}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return make_run(np.random.default_rng(0), estimators=TRUTH)


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts if t.get_gid() == "text"]


def test_numbers_are_those_of_the_law(ds: xr.Dataset) -> None:
    law, whole = gp.stats.alignment(ds), gp.stats.alignment(ds, "model")
    figure = gp.plots.heatmap(ds)
    cells = figure.gradprobe_record["cells"]
    assert cells["layers"] == [*LAYERS, "whole model"]
    assert cells["methods"] == list(TRUTH)
    want = np.vstack([law["ceiling"].transpose("layer", "estimator").values, whole["ceiling"].values])
    state = np.vstack([law["state"].transpose("layer", "estimator").values, whole["state"].values])
    shown = np.array(cells["value"], dtype=float)
    known = state == "resolved"
    np.testing.assert_allclose(shown[known], want[known])
    assert np.isnan(shown[~known]).all()
    written = np.array(texts(figure)).reshape(shown.shape)
    assert [written[y, x] for y, x in np.argwhere(known)] == [number("ceiling", v) for v in want[known]]


def test_what_is_no_number_is_marked(ds: xr.Dataset) -> None:
    figure = gp.plots.heatmap(ds)
    cells = figure.gradprobe_record["cells"]
    mark = dict(zip(cells["methods"], np.array(cells["mark"]).T, strict=True))
    text = dict(zip(cells["methods"], np.array(cells["text"]).T, strict=True))
    assert list(mark["lr"]) == ["value", "none", "value", "value"]
    assert text["lr"][1] == "–"
    assert set(mark["gone"]) == {"none"}
    assert set(text["gone"]) == {"?"}
    assert set(mark["es"]) <= {"bound", "value"}
    assert "bound" in mark["es"]
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert len(hatched) == sum(list(m).count("bound") for m in mark.values())
    (legend,) = figure.legends
    words = " ".join(t.get_text() for t in legend.get_texts())
    assert "only a bound is known" in words
    assert "not served" in words
    assert f"{len(hatched)} of 20 cells" in figure.gradprobe_caption


@pytest.mark.parametrize("quantity", ["half_copies", "price", "gain", "cosine"])
def test_other_quantities(ds: xr.Dataset, quantity: str) -> None:
    cells = gp.plots.heatmap(ds, quantity, copies=100, model=False).gradprobe_record["cells"]
    law = gp.stats.alignment(ds)
    source = gp.stats.predict(law, 100) if quantity == "cosine" else law
    want = source[quantity].transpose("layer", "estimator").values
    shown = np.array(cells["value"], dtype=float)
    known = np.isfinite(shown)
    assert known.any()
    np.testing.assert_allclose(shown[known], want[known])
    low, high = (np.array(cells[end], dtype=float) for end in ("low", "high"))
    bound = np.array(cells["mark"]) == "bound"
    if quantity in ("gain", "cosine"):
        assert ((low <= 0) & (high >= 0))[bound].all()
    else:
        assert not np.isfinite(high[bound]).any() or quantity == "half_copies"


def test_few_seeds_are_in_brackets() -> None:
    few = make_run(np.random.default_rng(0), seeds=2)
    assert all(t.startswith("(") for t in texts(gp.plots.heatmap(few)))


def test_the_largest_table_is_legible() -> None:
    """100 layers x 8 methods: letters of at least 4.5 points, and every text within its cell."""
    layers = {f"encoder.layer.{i}.attention.query": 24 for i in range(100)}
    truth = {f"method-{j}": Truth(0.6, 10.0 ** (j - 2)) for j in range(8)}
    big = make_run(np.random.default_rng(1), layers=layers, estimators=truth, seeds=3, blocks=5)
    figure = gp.plots.heatmap(big, "half_copies")
    assert figure.get_size_inches()[0] == 7.0
    figure.draw_without_rendering()
    axis = figure.axes[0]
    cell = axis.get_window_extent().width / 8
    row = axis.get_window_extent().height / 101
    for text in (t for t in axis.texts if t.get_gid() == "text"):
        box = text.get_window_extent()
        assert text.get_fontsize() >= 4.5
        assert box.width <= cell
        assert text.get_fontsize() * figure.dpi / 72 <= row
    ticks = [t for t in axis.get_yticklabels() if t.get_text()]
    assert len(ticks) == 101
    assert min(t.get_fontsize() for t in ticks) * figure.dpi / 72 <= row


def test_files_hold_numbers_and_caption(ds: xr.Dataset, tmp_path: Path) -> None:
    figure = gp.plots.heatmap(ds, "cosine", copies=1e4, save=tmp_path / "heat")
    record = json.loads((tmp_path / "heat.json").read_text())
    assert record["caption"] == figure.gradprobe_caption
    assert "after 10,000 copies" in record["caption"]
    assert "the run ends at 320 copies" in record["caption"]
    assert record["arguments"]["quantity"] == "cosine"
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", ".pdf", ".json"}
    assert (tmp_path / "heat.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quantity": "ceilings"}, "Did you mean 'ceiling'"),
        ({"estimators": "lrr"}, "Did you mean 'lr'"),
        ({"layers": "dense*"}, "dense"),
        ({"copies": -1, "quantity": "cosine"}, "positive"),
        ({"estimators": []}, "nothing to draw"),
        ({"width": 1.0}, "does not fit"),
    ],
)
def test_mistakes_get_one_sentence(ds: xr.Dataset, options: dict, says: str) -> None:
    with pytest.raises(gp.UsageError) as caught:
        gp.plots.heatmap(ds, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (4.2, "4.2"),
        (99.7, "100"),
        (982.4, "982"),
        (999.8, "1k"),
        (1279, "1.3k"),
        (453_212, "453k"),
    ],
)
def test_copies_in_few_letters(value: float, text: str) -> None:
    assert number("price", value) == text
