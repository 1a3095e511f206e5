from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.notebook.labelled import array_view, dataset_view
from gradprobe.notebook.methods import methods_view
from gradprobe.notebook.problem import problem_view
from tests.notebook.pages import Page, rows_of
from tests.notebook.test_runs import HOSTILE, a_run
from tests.problems_tiny import classifier


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return a_run(noisy_blocks=8)


def html_of(found: Any) -> str:
    shown = array_view(found) if isinstance(found, xr.DataArray) else dataset_view(found)
    assert shown is not None
    return shown


@pytest.mark.parametrize("name", ["accuracy", "stability"])
def test_means_over_seeds(ds: xr.Dataset, name: str) -> None:
    found = getattr(gp.stats, name)(ds, copies=(64, 320))
    rows = rows_of(html_of(found))
    for layer in found["layer"].values:
        for method in ("exact", "biased"):
            value = float(found.sel(layer=layer, estimator=method).mean("seed"))
            assert float(rows[layer][method]) == pytest.approx(value, abs=6e-4)
    text = Page(html_of(found)).text
    assert "over 64 to 320 copies" in text
    assert "Mean over 5 seeds." in text


def test_curves_show_their_last_point(ds: xr.Dataset) -> None:
    found = gp.stats.bands(gp.stats.cosine(ds))
    last = found.isel(copies=-1).sel(layer="fc", estimator="exact")
    words = rows_of(html_of(found))["fc"]["exact"].replace(",", "").split()
    assert [float(w.strip("[]")) for w in words] == pytest.approx(
        [float(last[n]) for n in ("mean", "low", "high")], abs=6e-4
    )
    assert "At copies = 320, the last of 20." in Page(html_of(found)).text


def test_the_law_has_a_line_for_each_layer_and_method(ds: xr.Dataset) -> None:
    found = gp.stats.alignment(ds)
    head, *rows = Page(html_of(found)).tables[0]
    assert "ceiling, half copies, price, gain · over layers" in Page(html_of(found)).text
    assert head == ["layer", "method", "ceiling", "half copies", "price", "gain", "state"]
    at = {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}
    assert len(at) == found["state"].size
    for (layer, method), row in at.items():
        one = found.sel(layer=layer, estimator=method)
        assert row["state"] == str(one["state"].values)
        value, *ends = row["ceiling"].split(" [")
        assert (value == "" or value.startswith("[")) == bool(np.isnan(one["ceiling"]))
        if ends:
            assert float(value) == pytest.approx(float(one["ceiling"]), abs=6e-4)


def test_parts_along_a_named_dimension_are_columns(ds: xr.Dataset) -> None:
    found = gp.stats.decompose(ds)
    head = Page(html_of(found)).tables[0][0]
    assert set(map(str, found["part"].values)) <= set(head)


def test_two_methods_against_each_other(ds: xr.Dataset) -> None:
    found = gp.stats.compare(ds, "exact", "biased")
    page = Page(html_of(found))
    assert "exact against biased" in page.text
    assert "overall: " in page.text
    effect = float(rows_of(html_of(found))["fc"]["effect"].split()[0])
    assert effect == pytest.approx(float(found["effect"].sel(layer="fc")), abs=6e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda ds: gp.stats.alignment(ds, over="model"),
        lambda ds: gp.stats.alignment(ds, over={"first": ["conv*"], "last": "fc"}),
        lambda ds: gp.stats.cosine(ds, over="parameter"),
        lambda ds: gp.stats.goodness_of_fit(ds),
        lambda ds: gp.stats.coverage(ds),
        lambda ds: gp.stats.cost(ds),
        lambda ds: gp.stats.predict(gp.stats.alignment(ds), copies=[100, 1000]),
        lambda ds: gp.stats.frontier(ds),
        lambda ds: gp.stats.stability_floor(ds, over="model"),
    ],
)
def test_every_other_result_has_a_table(ds: xr.Dataset, make: Callable[[xr.Dataset], Any]) -> None:
    found = make(ds)
    head, *rows = Page(html_of(found)).tables[0]
    assert rows
    methods = set(map(str, found["estimator"].values)) if "estimator" in found.dims else set()
    assert methods <= {*head, *(cell for row in rows for cell in row)} or len(rows) > 20


def test_methods_are_shown_with_their_whole_sentences() -> None:
    frame = gp.list_estimators()
    found = methods_view(frame)
    assert found is not None
    assert max(frame["summary"], key=len) in Page(found).text
    assert methods_view(frame.rename(columns={"target": "goal"})) is None


def test_a_problem_says_what_it_is_made_of() -> None:
    problem = classifier()
    problem.name, problem.facts = HOSTILE, {"checkpoint": HOSTILE}
    page = Page(problem_view(problem))
    assert not {"script", "img"} & set(page.tags)
    assert HOSTILE in page.text
    assert "batch of 8 · cross_entropy, one loss for each sample · 43 weights" in page.text
    assert rows_of(problem_view(problem))["first.weight"] == {"shape": "5 × 4", "weights": "20"}


def test_a_plan_shows_every_layer(ds: xr.Dataset) -> None:
    plan = gp.plan(ds, cosine=0.5)
    rows = rows_of(plan._repr_html_())
    assert list(rows) == [x.layer for x in plan.layers]
    for x in plan.layers:
        assert rows[x.layer]["method"] == x.method
        assert rows[x.layer]["copies"] == f"{x.copies:,}"
