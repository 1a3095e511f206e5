"""``gradprobe audit``: exit codes, JSON and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import command

CODE = """
import torch.nn.functional as F

def right(module, batch):
    F.cross_entropy(module(batch[0]), batch[1]).backward()

def summed(module, batch):
    F.cross_entropy(module(batch[0]), batch[1], reduction="sum").backward()
"""
FEW = ("--checkpoint", "trained", "--batch-size", "4")


@pytest.fixture
def code(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(CODE, encoding="utf-8")
    return str(file)


def test_right_code_ends_with_0_and_wrong_code_with_2(code: str) -> None:
    right, wrong = command("audit", f"{code}:right", *FEW), command("audit", f"{code}:summed", *FEW, "--json")
    assert right.returncode == 0, right.stderr
    assert right.stdout.startswith("right on resnet5, trained, digits: nothing wrong found (1 call measured)")
    assert wrong.returncode == 2
    data = json.loads(wrong.stdout)
    assert data["ok"] is False
    assert "looks like B = 4" in data["problems"][0]
    assert data["evidence"]["parts"]["the whole model"]["gain"][0] == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{}:wrong",), "unknown name"),
        (("{}",), "lacks a name"),
        (("{}:F.__name__",), "needs a function"),
        (("{}:right", "--target", "grad"), "Did you mean 'gradient'"),
        (("{}:right", "--layers", "conv"), "unknown layer"),
    ],
)
def test_bad_input_is_one_sentence(code: str, words: tuple[str, ...], message: str) -> None:
    done = command("audit", *(w.format(code) for w in words), *FEW)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
