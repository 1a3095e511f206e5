from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.core import markup
from gradprobe.notebook.labelled import array_view, dataset_view
from tests.notebook.pages import Page, rows_of
from tests.problems_tiny import classifier
from tests.synthetic import Truth, make_run

HOSTILE = '<script>alert("x")</script><img src=x onerror=y>&amp;'


def a_run(**changed: Any) -> xr.Dataset:
    methods = {
        "exact": Truth(rho=1.0, kappa=40.0),
        "biased": Truth(rho=0.6, kappa=40.0),
        "lost": Truth(rho=0.9, kappa=1e6),
        "picky": Truth(rho=0.9, kappa=40.0, refused=("conv2",)),
    }
    ds = make_run(np.random.default_rng(7), **{"estimators": methods, **changed})
    ds.attrs |= {"problem": "net", "batch_size": 32}
    return ds


def shown(ds: xr.Dataset) -> str:
    found = dataset_view(ds)
    assert found is not None
    return found


def test_the_table_holds_cosines_and_resolved_ceilings() -> None:
    ds = a_run()
    rows = rows_of(shown(ds))
    law, last = gp.stats.alignment(ds), gp.stats.cosine(ds).isel(copies=-1).mean("seed")
    assert list(rows) == ["whole model", "conv1", "conv2", "fc"]
    states = set()
    for layer in ("conv1", "conv2", "fc"):
        for method in ("exact", "biased", "lost"):
            at = {"layer": layer, "estimator": method}
            state = str(law["state"].sel(at).values)
            first, *rest = rows[layer][method].split()
            assert float(first) == pytest.approx(float(last.sel(at)), abs=6e-4)
            states.add(state)
            if state == "resolved":
                ends = [float(law[f"ceiling{e}"].sel(at)) for e in ("", "_low", "_high")]
                assert [float(word.strip("[],")) for word in rest] == pytest.approx(ends, abs=6e-4)
            elif state == "unresolved":
                assert rest == ["unresolved"]
    assert {"resolved", "unresolved"} <= states
    assert rows["conv2"]["picky"] == "refused"
    model = gp.stats.cosine(ds, "model").isel(copies=-1).mean("seed").sel(estimator="biased")
    assert float(rows["whole model"]["biased"].split()[0]) == pytest.approx(float(model), abs=6e-4)


def test_the_heading_says_what_was_probed() -> None:
    text = Page(shown(a_run())).text
    assert "net · batch of 32 · 4 methods · 3 layers · 320 copies × 5 seeds · against bp" in text


def test_the_verdict_on_the_whole_model_comes_first() -> None:
    ds = a_run()
    page, said = Page(shown(ds).partition("<details>")[0]), gp.verdict(ds).sentences
    many = page.tags.count("li")
    assert many
    assert all(sentence in page.text for sentence in said[:many])
    assert not any(sentence in page.text for sentence in said[many:])


def test_what_failed_or_is_missing_is_said() -> None:
    ds = a_run(estimators={"a": Truth(missing=(4,)), "b": Truth(failed=(0,)), "c": Truth()})
    text = Page(shown(ds)).text
    assert "Failed (7%): b." in text
    assert "Not computed yet (7%): a." in text


@pytest.mark.parametrize("kept", [False, True])
def test_a_stopped_run_says_so(kept: bool, tmp_path: Any) -> None:
    ds = gp.probe(
        classifier(),
        ["lr"],
        copies=40,
        seeds=2,
        out=tmp_path / "run" if kept else None,
        progress=lambda *now: signal.raise_signal(signal.SIGINT),
    )
    text = Page(shown(ds)).text
    assert (
        "Stopped before it was done; " + ("the same call goes on" if kept else "this is what there is")
        in text
    )


def test_a_single_block_has_cosines_and_no_ceiling() -> None:
    ds = a_run(blocks=1, estimators={"a": Truth()})
    assert float(rows_of(shown(ds))["fc"]["a"]) == pytest.approx(
        float(gp.stats.cosine(ds).sel(layer="fc", estimator="a").mean()), abs=6e-4
    )


def test_large_runs_are_cut() -> None:
    many = {f"layer{i}": 8 for i in range(40)}
    ds = a_run(layers=many, estimators={f"m{i}": Truth() for i in range(15)}, seeds=3, blocks=3)
    page = Page(shown(ds))
    assert len(page.tables[0]) <= markup.MOST_ROWS + 2
    assert page.tables[0][-1] == ["... and 17 more layers"]
    assert "... and 3 more methods." in page.text
    law = dataset_view(gp.stats.alignment(ds))
    assert law is not None
    assert len(Page(law).tables[0]) <= markup.MOST_ROWS + 2
    acc = array_view(gp.stats.accuracy(ds))
    assert acc is not None
    assert Page(acc).tables[0][-1] == ["... and 16 more layers"]


def test_names_are_escaped() -> None:
    ds = a_run(layers={HOSTILE: 20, "fc": 20}, estimators={HOSTILE: Truth()}, seeds=3)
    ds.attrs["problem"] = HOSTILE
    law = gp.stats.alignment(ds)
    for found in (shown(ds), dataset_view(law), array_view(gp.stats.accuracy(ds))):
        assert found is not None
        assert not {"script", "img"} & set(Page(found).tags)
    assert HOSTILE in rows_of(shown(ds))


def test_no_script_and_no_colour_of_its_own() -> None:
    own = shown(a_run()).partition("<details>")[0]
    assert "script" not in Page(own).tags
    assert not any(word in own for word in ("#fff", "#000", "black", "white;", "background:#"))


def test_runs_side_by_side_show_the_first() -> None:
    ds = gp.probe(
        gp.load_problem("resnet5", "trained", "digits", batch_size=4),
        ["lr"],
        layers="fc",
        copies=20,
        seeds=2,
        batches=2,
    )
    found = shown(ds)
    assert "2 along batch" in Page(found).text
    one = gp.stats.cosine(ds.isel(batch=0)).isel(copies=-1).mean("seed").sel(layer="fc", estimator="lr")
    assert float(rows_of(found)["fc"]["lr"].split()[0]) == pytest.approx(float(one), abs=6e-4)


def test_other_labelled_data_is_not_ours() -> None:
    own = a_run()
    for other in (
        xr.Dataset({"a": ("x", [1.0])}),
        xr.Dataset({"dot": ("estimator", [1.0])}, attrs={"block": 4}),
        xr.Dataset(),
        own[["status"]],
        gp.descend("beale", ["bp"], steps=3, seeds=1, lr=1e-3, progress=False),
    ):
        assert dataset_view(other) is None
    for array in (xr.DataArray([1.0]), own["sqnorm"], own["status"]):
        assert array_view(array) is None
