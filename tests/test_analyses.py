"""Every script in analyses runs in its small mode."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "analyses"
EXTRAS = ("surrogate_bias",)
"""Scripts that need an extra; tests/extras runs them."""
ALONE = ("bench_capture", "bench_feedback", "cost_growth", "dependent_blocks")
"""Scripts that start processes or import one another; they get a process of their own."""
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in EXTRAS)


def words_of(script: Path, tmp_path: Path) -> list[str]:
    out = ["--out", str(tmp_path / "out")] if "--out" in script.read_text() else []
    return [str(script), "--smoke", *out]


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem in ALONE], ids=lambda path: path.stem)
def test_smoke_in_a_process(script: Path, tmp_path: Path) -> None:
    words = [sys.executable, *words_of(script, tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem not in ALONE], ids=lambda path: path.stem)
def test_smoke(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words_of(script, tmp_path))
    with torch.random.fork_rng(devices=[]), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out


def test_the_best_hybrid_where_no_rival_reaches_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = runpy.run_path(str(FOLDER / "best_hybrid.py"))
    rival = SimpleNamespace(method="lr", equal=None, best=None)
    plan = SimpleNamespace(cost=3.0, rivals=[rival], cosine=0.5, low=None, high=None)
    monkeypatch.setattr(analysis["gp"], "plan", lambda *_, **__: plan)
    row = analysis["planned"](None, 0.5)[1]
    assert math.isnan(row["plan / best equal"])
    assert math.isnan(row["predicted_low"])
    assert row["predicted"] == 0.5
    assert not analysis["within"](row | {"measured": 0.5, "measured_low": 0.4, "measured_high": 0.6})
