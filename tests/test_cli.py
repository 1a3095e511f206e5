"""The command as a user types it: exit codes, one sentence for each mistake, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

import gradprobe as gp
from tests.commands import command, process

QUICK = ["--copies", "40", "--seeds", "3", "--batch-size", "8", "--layers", "fc"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "demo"
    words = ["--checkpoint", "trained", "--estimators", "lr,alr(sigma=0.1),es", "--out", str(out)]
    done = process("probe", *words, *QUICK)
    assert done.returncode == 0, done.stderr
    return out


def test_probe_writes_a_run(run: Path) -> None:
    ds = gp.open_run(run)
    assert list(ds.estimator.values) == ["lr", "alr(sigma=0.1)", "es"]
    assert (ds.sizes["seed"], ds.sizes["copies"]) == (3, 4)


def test_report_prints_tables_and_writes_files(run: Path, tmp_path: Path) -> None:
    done = command("report", str(run), "--out", str(tmp_path / "report"), "--theory", "--html")
    assert done.returncode == 0, done.stderr
    for word in (
        "Acc.",
        "Sta.",
        "floor",
        "ceiling",
        "half-power",
        "Whole model",
        "alr(sigma=0.1)",
        "for this batch",
    ):
        assert word in done.stdout
    names = {f.name for f in (tmp_path / "report").iterdir()}
    tables = {"layer-means.csv", "model.csv", "layers.csv"}
    assert names == tables | {f"similarity.{end}" for end in ("png", "pdf", "json")} | {"report.html"}
    record = json.loads((tmp_path / "report" / "similarity.json").read_text())
    assert all(panel["theory"]["cosine"] for panel in record["panels"])


def test_a_target_is_for_the_plan_on_the_page(run: Path, tmp_path: Path) -> None:
    for words, said in (
        (["--cosine", "0.5"], "add --html"),
        (["--cosine", "2", "--html"], "between 0 and 1"),
    ):
        done = command("report", str(run), "--out", str(tmp_path / "report"), *words)
        assert (done.returncode, "\n" in done.stderr.strip()) == (2, False)
        assert said in done.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("kind", ["run.json", "toml"])
def test_the_resolved_configuration_runs_again(run: Path, kind: str, tmp_path: Path) -> None:
    config = run / "run.json"
    if kind == "toml":
        config = tmp_path / "config.toml"
        text = 'checkpoint = "trained"\nbatch_size = 8\nlayers = ["fc"]\ncopies = 40\nseeds = 3\n'
        config.write_text(text + 'estimators = ["lr", "alr(sigma=0.1)", "es"]\n')
        tomllib.loads(config.read_text())
    done = command("probe", "--config", str(config), "--out", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    again, first = gp.open_run(tmp_path / "again"), gp.open_run(run)
    for name in ("dot", "sqnorm", "block_sqnorm"):
        xr.testing.assert_allclose(again[name], first[name], rtol=1e-5)


def test_options_override_the_configuration(run: Path, tmp_path: Path) -> None:
    words = ["--config", str(run / "run.json"), "--estimators", "es", "--copies", "20"]
    assert command("probe", *words, "--out", str(tmp_path / "other")).returncode == 0
    ds = gp.open_run(tmp_path / "other")
    assert list(ds.estimator.values) == ["es"]
    assert ds.sizes["copies"] == 2


def test_more_copies_go_on_from_kept_sums(tmp_path: Path) -> None:
    words = ["--checkpoint", "trained", "--estimators", "lr,es", *QUICK, "--out", str(tmp_path / "run")]
    assert command("probe", *words, "--keep", "sums").returncode == 0
    done = command("probe", "--config", str(tmp_path / "run" / "run.json"), *words, "--copies", "60")
    assert done.returncode == 0, done.stderr
    ds = gp.open_run(tmp_path / "run")
    assert ds["seed_product"].notnull().all()
    assert "360 of 360 copies" in done.stderr
    assert len(list((tmp_path / "run" / "sums").iterdir())) == 6


def test_several_batches_and_their_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--checkpoint", "early", "--estimators", "lr,bp", *QUICK, "--reference", "bp,dataset"]
    done = command("probe", *words, "--batches", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    ds = gp.open_run(out)
    assert ds["batch"].values.tolist() == [0, 1, 2]
    report = command("report", str(out), "--out", str(tmp_path / "report"))
    assert report.returncode == 0, report.stderr
    for word in ("Data or copies, 3 batches of 8", "n*", "is of the first of 3 batches", "whole model"):
        assert word in report.stdout
    names = {f.name for f in (tmp_path / "report").iterdir()}
    assert {"data-or-copies.csv", "data_or_copies.png", "data_or_copies.json", "layers.csv"} <= names
    table = pd.read_csv(tmp_path / "report" / "data-or-copies.csv")
    found = gp.stats.data_or_copies(ds)
    assert table["crossover"][0] == pytest.approx(float(found["crossover"].sel(estimator="lr", layer="fc")))
    configuration = json.loads((out / "batch-2" / "run.json").read_text())["configuration"]
    assert configuration["first"] == 16


def test_a_failure_behind_older_copies_exits_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["probe", "--checkpoint", "trained", "--estimators", "lr", *QUICK, "--out", str(tmp_path / "run")]
    assert command(*words).returncode == 0

    def fail(*given: object) -> Iterator[None]:
        raise gp.UsageError("there is no room")
        yield

    monkeypatch.setattr("gradprobe.probes.unit.read_blocks", fail)
    done = command(*words, "--copies", "80")
    assert done.returncode == 3, done.stderr
    assert "Some units failed" in done.stderr
    assert (gp.open_run(tmp_path / "run").status == "ok").any()
    report = command("report", str(tmp_path / "run"), "--out", str(tmp_path / "report"))
    assert "there is no room" in report.stdout


WRONG = [
    (["--estimators", "lrr"], "Did you mean 'lr'"),
    (["--estimators", "lr(sigma=0.1"], "write it as name"),
    (["--estimators", "lr(nois=laplace)"], "Did you mean 'noise'"),
    (["--model", "resnet-5"], "Did you mean 'resnet5'"),
    (["--data", "digts"], "Did you mean 'digits'"),
    (["--layers", "fcc"], "Did you mean 'fc'"),
    (["--copies", "45"], "not a multiple of the block of 10; use 40 or 50"),
    (["--seeds", "many"], "seeds must be"),
    (["--sigma", "-0.1"], "positive number"),
    (["--sigma", "small"], "positive number"),
    (["--checkpoint", "nowhere.safetensors"], "no checkpoint"),
    (["--checkpoint", "trained", "--model-arg", "width=16"], "does not fit the model"),
    (["--model-arg", "width"], "name=value"),
    (["--config", "nowhere.toml"], "no configuration file"),
    (["--reference", "smooth"], "Did you mean 'smoothed'"),
    (["--keep", "sum"], "Did you mean 'sums'"),
    (["--batch-size", "100000"], "does not fit"),
    (["--batches", "1"], "batches must be a whole number from 2 on"),
    (["--batches", "9999"], "use fewer or smaller batches"),
    (["--model", "nowhere.py:Net"], "there is no file 'nowhere.py'"),
    (["--model", "nowhere:Net"], "there is no module 'nowhere'"),
    (["--model", "resnet5.py"], "lacks a name"),
    (["--data", "nowhere.npz"], "there is no file 'nowhere.npz'"),
    (["--data-arg", "split"], "option of the data is written as name=value"),
    (["--data-arg", "length=3"], "unknown option of data 'digits'"),
    (["--trust-pickle"], "no checkpoint is given"),
    (["--checkpoint-key", "model"], "no checkpoint is given"),
    (["--allow-global", "argparse.Namespace"], "no checkpoint is given"),
    (["--mode", "train"], "unknown mode 'train'"),
    (["--output", "logits"], "output"),
    (["--loss", "crossentropy"], "Did you mean 'cross_entropy'"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_mistakes_are_one_sentence_and_exit_2(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gradprobe.cli import main

    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["gradprobe", "probe", *QUICK, *words, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert error.count("\n") == 0 or "does not fit the model" in error.splitlines()[0]  # its table follows
    assert not out.exists()


def test_unknown_configuration_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from gradprobe.cli import main

    (tmp_path / "x.toml").write_text("estimatrs = ['lr']\n")
    words = ["gradprobe", "probe", "--config", str(tmp_path / "x.toml"), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        main()
    assert "Did you mean 'estimators'" in capsys.readouterr().err


def test_report_of_what_is_no_run(tmp_path: Path) -> None:
    done = process("report", str(tmp_path))
    assert done.returncode == 2
    assert "not a gradprobe run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_run_in_the_directory(run: Path) -> None:
    before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
    done = command("probe", "--checkpoint", "early", "--out", str(run), *QUICK)
    assert done.returncode == 2
    assert "another model" in done.stderr
    assert {f: f.read_bytes() for f in run.rglob("*") if f.is_file()} == before


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.argv = ['gradprobe', 'probe', '--help']\nfrom gradprobe.cli import main\n"
    code += "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--estimators" in done.stdout


def test_list() -> None:
    done = command("list")
    for word in ("a-hybrid", "resnet5", "digits", "rosenbrock", "laplace"):
        assert word in done.stdout


def test_trajectory_prints_a_table_and_writes_figures(tmp_path: Path) -> None:
    words = [
        "--estimators",
        "bp,lr,alr",
        "--steps",
        "30",
        "--seeds",
        "3",
        "--lr",
        "{'bp': 1e-4, 'lr': 1e-4, 'alr': 0.01}",
    ]
    done = process("trajectory", "--function", "beale", *words, "--out", str(tmp_path / "new"), "--animate")
    assert done.returncode == 0, done.stderr
    for word in ("beale: 3 walkers", "alr", "0.01", "alr against bp, 3 pairs"):
        assert word in done.stdout
    names = {f"{stem}.{end}" for stem in ("reached", "trajectory") for end in ("png", "pdf", "json")}
    assert {f.name for f in (tmp_path / "new").iterdir()} == names | {"trajectory.gif", "path.nc"}
    path = gp.open_run(tmp_path / "new" / "path.nc")
    assert path.sizes["seed"] == 3


def test_trajectory_from_a_grid_of_starts(tmp_path: Path) -> None:
    words = ["--estimators", "lr", "--start", "3", "--steps", "10", "--seeds", "2", "--lr", "1e-3"]
    done = command("trajectory", "--function", "himmelblau", *words, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "18 walkers" in done.stdout
    assert {f.stem for f in tmp_path.iterdir()} == {"reached", "basins", "path"}


def test_trajectory_from_several_starts(tmp_path: Path) -> None:
    words = [
        "--estimators",
        "lr",
        "--start=-3,2;1,1",
        "--steps",
        "10",
        "--seeds",
        "2",
        "--rates",
        "1e-4,1e-3",
    ]
    done = command("trajectory", *words, "--criterion", "steps", "--stay", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {f.stem for f in tmp_path.iterdir()} == {"reached", "trajectory-1", "trajectory-2", "path"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--function", "beal"], "Did you mean 'beale'?"),
        (["--start=9,9"], "outside the domain"),
        (["--start=a,b"], "start is a point such as"),
        (["--copies", "0"], "copies must be a positive whole number"),
        (["--sigma=-1"], "sigma must be a positive number"),
        (["--lr", "fast"], "or 'tuned', not 'fast'"),
        (["--optimizer", "lbfgs"], "asks for losses along the way"),
        (["--seeds", "few"], "seeds must be a number"),
        (["--estimators", "lr,lrr"], "Did you mean 'lr'?"),
        (["--bounds", "box"], "Known: project"),
        (["--start=1,1;1,1"], "a start is given twice"),
        (["--lr", "{'bp'"], "cannot read \"{'bp'\""),
        (["--lr", "0.1", "--criterion", "steps"], "an option of lr='tuned'"),
        (["--estimators", "bp,lr(antithetic=True)", "--copies", "15"], "do not fit into a block of 15"),
    ],
)
def test_careless_trajectories_get_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = command("trajectory", *words, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
