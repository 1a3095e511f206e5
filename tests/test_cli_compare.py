"""``gradprobe report RUN1 RUN2 ...`` as a user types it: tables, files, one sentence for each mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import gradprobe as gp
from tests.commands import command
from tests.problems_tiny import classifier, linear_problem

FIGURES = {f"{stem}.{end}" for stem in ("training", "training-ceiling") for end in ("png", "pdf", "json")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    for step, scale, copies in ((5, 1.0, 16), (10, 0.5, 24)):
        methods = ["lr", "es"] if step == 5 else ["lr", "alr"]
        gp.probe(
            classifier(scale=scale), methods, copies=copies, block=4, seeds=3, out=place / f"step-{step}"
        )
    gp.probe(classifier(), ["lr"], copies=16, block=4, seeds=3, sigma=0.5, out=place / "wide")
    gp.probe(linear_problem(), ["lr"], copies=8, block=4, seeds=2, out=place / "other")
    gp.probe(classifier(seed=3), ["lr"], copies=8, block=4, seeds=2, out=place / "batch")
    gp.probe(classifier(scale=0.25), ["lr"], copies=1, block=1, seeds=2, out=place / "one-copy")
    gp.probe(classifier(scale=2.0), ["lr"], copies=1, block=1, seeds=2, out=place / "another-copy")
    return place


def test_two_checkpoints_are_compared(runs: Path, tmp_path: Path) -> None:
    done = command("report", str(runs / "step-5"), str(runs / "step-10"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    for word in (
        "Whole model at each checkpoint",
        "Acc. over 4 to 16 copies, cosine at 16",
        "for this batch",
    ):
        assert word in done.stdout
    assert {f.name for f in (tmp_path / "out").iterdir()} == {"comparison.csv"} | FIGURES
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(table["layer"]) == {"whole model", "first", "last"}
    row = table.query("layer == 'last' and method == 'lr' and checkpoint == 10").iloc[0]
    alone = gp.open_run(runs / "step-10")
    own = {"layer": "last", "estimator": "lr"}
    assert row["cosine"] == float(gp.stats.cosine(alone).sel(copies=16, **own).mean("seed"))
    assert row["Acc."] == float(gp.stats.accuracy(alone, (4, 16)).sel(own).mean("seed"))
    assert row["price"] == float(gp.stats.alignment(alone)["price"].sel(own))
    assert not len(table.query("method == 'es' and checkpoint == 10"))


def test_by_default_files_go_beside_the_first_run(runs: Path) -> None:
    done = command("report", str(runs / "step-5"), str(runs / "step-10"), "--labels", "a,b")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(runs / "comparison" / "comparison.csv")
    assert set(table["checkpoint"]) == {"a", "b"}
    shutil.rmtree(runs / "comparison")


def test_runs_of_one_checkpoint_lie_along_sigma(runs: Path, tmp_path: Path) -> None:
    done = command("report", str(runs / "step-5"), str(runs / "wide"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "Whole model at each sigma" in done.stdout
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv")["sigma"]) == {0.01, 0.5}


def test_exports_are_compared(runs: Path, tmp_path: Path) -> None:
    files = [gp.export(gp.open_run(runs / f"step-{n}"), tmp_path / f"{n}.nc") for n in (5, 10)]
    done = command("report", *map(str, files), "--out", str(tmp_path / "out"), "--copies", "8:16")
    assert done.returncode == 0, done.stderr
    assert "Acc. over 8 to 16 copies" in done.stdout


def test_runs_of_a_single_copy_have_cosines_and_no_law(runs: Path, tmp_path: Path) -> None:
    words = [str(runs / "one-copy"), str(runs / "another-copy"), "--out", str(tmp_path / "out")]
    done = command("report", *words, "--html")
    assert done.returncode == 0, done.stderr
    assert "too few copies" in done.stdout
    names = {f.name for f in (tmp_path / "out").iterdir()}
    assert names == {"comparison.csv", "report.html"} | {f for f in FIGURES if "ceiling" not in f}


def test_another_batch_must_be_allowed(runs: Path, tmp_path: Path) -> None:
    words = ["report", str(runs / "step-5"), str(runs / "batch"), "--out", str(tmp_path / "out")]
    refused = command(*words)
    assert refused.returncode == 2
    assert "--other-batches" in refused.stderr
    assert not (tmp_path / "out").exists()
    allowed = command(*words, "--other-batches")
    assert allowed.returncode == 0, allowed.stderr
    assert "may be the batch's" in allowed.stdout


def test_the_page_of_several_runs_has_all_of_them_first(runs: Path, tmp_path: Path) -> None:
    words = [str(runs / "step-5"), str(runs / "step-10"), "--out", str(tmp_path / "out"), "--html"]
    done = command("report", *words)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("Runs side by side</h2>") < page.index("In plain words: checkpoint 10</h2>")
    assert page.index("<h3>checkpoint 5</h3>") < page.index("<h3>checkpoint 10</h3>")
    assert 'data-name="comparison"' in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


@pytest.mark.parametrize(
    ("names", "words", "sentence"),
    [
        (("step-5", "step-5"), (), "given twice"),
        (("step-5", "nowhere"), (), "not a gradprobe run"),
        (("step-5", "other"), (), "other layers"),
        (("step-5", "step-10"), ("--labels", "a"), "2 runs and 1 labels"),
        (("step-5", "step-10"), ("--reference", "smoothed"), "unknown reference 'smoothed'"),
        (("step-5", "step-10"), ("--copies", "100:200"), "does not lie inside"),
        (("step-5", "step-10"), ("--theory",), "--theory"),
        (("step-5",), ("--labels", "a"), "at least two"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    runs: Path, tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...], sentence: str
) -> None:
    before = sorted(runs.rglob("*"))
    done = command("report", *(str(runs / n) for n in names), "--out", str(tmp_path / "out"), *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert sorted(runs.rglob("*")) == before


def test_a_copy_of_a_run_is_the_same_run(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "step-5", tmp_path / "copy")
    done = command("report", str(runs / "step-5"), str(tmp_path / "copy"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "one sigma (0.01) and of the same weights" in done.stderr
    assert not (tmp_path / "out").exists()
