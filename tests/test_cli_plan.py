"""``gradprobe plan``: from a run to a plan, to a run of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradprobe as gp
from tests.commands import command

PROBLEM = ["--checkpoint", "trained", "--batch-size", "8", "--layers", "conv1,fc", "--threads", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    problem = gp.load_problem(checkpoint="trained", batch_size=8)
    gp.probe(problem, "lr,es,hybrid,bp", copies=60, seeds=3, layers=["conv1", "fc"], out=out)
    return out


def test_a_plan_is_made_saved_and_run(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    done = command("plan", str(run), "--cosine", "0.3", "--out", str(file))
    assert done.returncode == 0, done.stderr
    for word in (
        "Plan for cosine 0.3",
        "conv1",
        "lr alone",
        "hybrid alone",
        "No plan of these methods costs less",
    ):
        assert word in done.stdout
    assert gp.Plan.load(file) == gp.plan(gp.open_run(run), cosine=0.3)
    done = command(
        "probe", "--estimators", str(file), "--out", str(tmp_path / "run"), "--seeds", "3", *PROBLEM
    )
    assert done.returncode == 0, done.stderr
    ds = gp.open_run(tmp_path / "run")
    assert ds.sizes["copies"] == 4
    again = command("probe", "--config", str(tmp_path / "run" / "run.json"), "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    repeated = gp.open_run(tmp_path / "again")
    assert list(repeated["estimator"].values) == list(ds["estimator"].values)
    assert (repeated["dot"] == ds["dot"]).all()


def test_a_budget_for_the_worst_layer_of_one_method(run: Path) -> None:
    done = command(
        "plan", str(run), "--budget", "200", "--every-layer", "--methods", "es", "--cost", "forwards"
    )
    assert done.returncode == 0, done.stderr
    assert "Plan for a budget of 200 forwards, the worst layer as good as can be" in done.stdout


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
def test_mistakes_get_one_sentence(run: Path, words: list[str], says: str) -> None:
    done = command("plan", str(run), *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
