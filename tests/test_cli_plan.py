"""``gradprobe plan``: from a run to a plan, to a run of the plan."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gradprobe as gp
from gradprobe.cli import main
from tests.test_cli import command


@pytest.fixture(scope="module")
def problem() -> gp.Problem:
    return gp.load_problem(checkpoint="trained", batch_size=8)


@pytest.fixture(scope="module")
def run(problem: gp.Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    gp.probe(problem, "lr,es,hybrid,bp", copies=60, seeds=3, layers=["conv1", "fc"], out=out)
    return out


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch):
    """``gradprobe plan`` in this process, with its exit code."""

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["gradprobe", "plan", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call


def test_a_plan_is_made_saved_and_run(problem, run, here, tmp_path, capsys) -> None:
    file = tmp_path / "plan.json"
    assert here(str(run), "--cosine", "0.3", "--out", str(file)) == 0
    shown = capsys.readouterr().out
    for word in (
        "Plan for cosine 0.3",
        "conv1",
        "lr alone",
        "hybrid alone",
        "No plan of these methods costs less",
    ):
        assert word in shown
    assert gp.Plan.load(file) == gp.plan(gp.open_run(run), cosine=0.3)
    first = gp.probe(problem, str(file), seeds=3, layers=["conv1", "fc"], out=tmp_path / "first")
    assert first.sizes["copies"] == 4
    again = command(
        "probe",
        "--config",
        str(tmp_path / "first" / "run.json"),
        "--out",
        str(tmp_path / "again"),
        "--threads",
        "1",
    )
    assert again.returncode == 0, again.stderr
    repeated = gp.open_run(tmp_path / "again")
    assert list(repeated["estimator"].values) == list(first["estimator"].values)
    assert repeated["dot"].values == pytest.approx(first["dot"].values, rel=1e-3)  # threads may differ


def test_a_budget_for_the_worst_layer_of_one_method(run, here, capsys) -> None:
    words = ("--budget", "200", "--every-layer", "--methods", "es", "--cost", "forwards")
    assert here(str(run), *words) == 0
    assert "Plan for a budget of 200 forwards, the worst layer as good as can be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give cosine=0.9"),
        (["--cosine", "0.3", "--methods", "bp"], "bp has no noise"),
        (["--cosine", "1.5"], "between 0 and 1"),
        (["--budget", "1"], "too small"),
        (["--cosine", "0.3", "--out", "plan.txt"], "add .json"),
    ],
)
def test_mistakes_get_one_sentence(run, here, words, says, capsys) -> None:
    assert here(str(run), *words) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out
