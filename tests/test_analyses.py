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


def test_the_gate_of_the_race_beside_other_libraries_passes_all_of_the_work_and_not_half() -> None:
    """Gradients of a linear loss from 128 pairs, from 64, and of twice the length; intervals of medians."""
    analysis = runpy.run_path(str(FOLDER / "bench_peers.py"))
    rng, pairs, size, calls = torch.Generator().manual_seed(0), 128, 2410, 16
    truth = torch.zeros(size).index_fill_(0, torch.tensor([0]), 1.0)

    def passes(drawn: int, factor: float = 1.0) -> bool:
        eps = torch.randn(calls, drawn, size, generator=rng)
        return analysis["gate"](list(factor * (eps[..., :1] * eps).mean(1)), truth, pairs)[2]

    assert all(passes(pairs) for _ in range(5))
    assert not any(passes(pairs // 2) for _ in range(5))
    assert not passes(pairs, 2.0)
    assert not passes(pairs, -1.0)
    ranks = [float(k) for k in range(1, 41)]
    assert analysis["median_interval"](ranks) == (20.5, 14.0, 27.0)  # 1 - 2 P(Bin(40, 1/2) <= 13) = 0.962
