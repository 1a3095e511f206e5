"""The table of several runs and the page's section of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.report.comparison import compare_runs
from gradprobe.report.page import html, make_context
from gradprobe.report.sections import SECTIONS
from tests.stats.batched import make_batches
from tests.synthetic import Truth, make_run

EVIL = '<script>alert("x")</script>'


def run(i: int, *methods: str, **options: int) -> xr.Dataset:
    truths = {label: Truth(1.0, 50.0 * (k + 1)) for k, label in enumerate(methods)}
    return make_run(np.random.default_rng(i), estimators=truths, **options)


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return gp.concat([run(0, "lr", "es"), run(1, "es", "alr", blocks=10)], labels=[EVIL, "late"])


def test_rows_are_whole_model_first_and_by_method_then_run(ds: xr.Dataset) -> None:
    found = compare_runs(ds)
    assert (found.dim, found.copies, found.range) == ("checkpoint", 160, (16, 160))
    table = found.model[["method", "checkpoint"]].to_numpy().tolist()
    assert table == [["lr", EVIL], ["es", EVIL], ["es", "late"], ["alr", "late"]]
    assert list(dict.fromkeys(found.table["layer"])) == ["whole model", "conv1", "conv2", "fc"]


def test_a_run_that_was_not_begun_with_a_method_does_not_shorten_the_others() -> None:
    long = gp.concat([run(0, "lr"), run(1, "lr", blocks=30)], labels=[1, 2])
    assert compare_runs(long).copies == 320


def test_what_ceilings_of_unlike_runs_rest_on_is_said() -> None:
    """The cosine is at equal copies; the ceiling of each run is fitted to all of its own."""
    alike = gp.concat([run(0, "lr"), run(1, "lr")], labels=[1, 2])
    assert not any("rest on" in note for note in compare_runs(alike).notes)
    ds = gp.concat([run(0, "lr"), run(1, "lr", blocks=30, seeds=4), run(2, "lr")], labels=[1, 2, 3])
    sizes = "320 copies x 5 seeds at checkpoint 1, 3; 480 copies x 4 seeds at checkpoint 2."
    said = f"rest on all that each run has: {sizes}"
    assert said in compare_runs(ds).notes[0]
    assert said in gp.plots.training(ds, "ceiling").gradprobe_caption
    assert said not in gp.plots.training(ds).gradprobe_caption
    fitted = gp.stats.alignment(ds)["fitted_copies"].sel(estimator="lr", layer="fc")
    assert fitted.values.tolist() == [320, 480, 320]


def test_names_of_checkpoints_are_escaped_on_the_page(ds: xr.Dataset) -> None:
    page = html(ds)
    assert EVIL not in page
    assert "&lt;script&gt;alert" in page


def test_methods_that_only_another_run_has_are_missing_in_what_follows(ds: xr.Dataset) -> None:
    context = make_context(ds)
    assert context.methods == ["lr", "es", "alr"]
    assert context.which == "checkpoint late"
    assert (context.ds["status"].sel(estimator="lr") == "missing").all()
    assert context.ds["copies"].values[-1] == 160
    section = str(SECTIONS.get("compare")(context))
    assert re.search(r'class="value m2"', section)
    assert "What follows is about checkpoint late." in section


def test_one_run_has_no_such_section() -> None:
    one = run(0, "lr")
    assert SECTIONS.get("compare")(make_context(one)) is None
    assert "Runs side by side" not in html(one)


def test_of_several_batches_the_page_shows_the_first() -> None:
    made = [make_batches(np.random.default_rng(i), {"lr": Truth()}, batches=2, noise=0.5).ds for i in (0, 1)]
    page = html(gp.concat(made, labels=[1, 2]))
    assert page.index("Runs side by side") < page.index("checkpoint 2")
