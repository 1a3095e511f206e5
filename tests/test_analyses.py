"""Every script in analyses runs in its small mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "analyses"
EXTRAS = ("surrogate_bias",)
"""Scripts that need an extra; tests/extras runs them."""
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in EXTRAS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_smoke(script: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")] if "--out" in script.read_text() else []
    words = [sys.executable, str(script), "--smoke", *out]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
