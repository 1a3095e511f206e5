"""``gradprobe probe`` on models and data from elsewhere: reproduced from run.json, mistakes in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import gradprobe as gp
from gradprobe.cli_options import gather, merged
from gradprobe.core.errors import UsageError

CODE = """
from torch import nn

def make(classes, width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, classes))
"""
QUICK = ["--copies", "20", "--seeds", "2", "--batch-size", "4", "--estimators", "lr,es"]


def test_relative_paths_are_found_again_from_another_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradprobe.cli import main

    def command(folder: Path, *words: str) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["gradprobe", "probe", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0, capsys.readouterr().err

    (tmp_path / "net.py").write_text(CODE)
    generator = torch.Generator().manual_seed(1)
    batch = {"inputs": torch.randn(6, 4, generator=generator), "targets": torch.arange(6) % 3}
    save_file(batch, tmp_path / "batch.safetensors")
    words = ["--model", "net.py:make", "--model-arg", "width=3"]
    words += ["--data", "batch.safetensors", "--data-arg", "classes=3"]
    command(tmp_path, *words, *QUICK, "--out", "run")
    assert "the weights are those that net.py:make gave" in capsys.readouterr().err
    (tmp_path / "elsewhere").mkdir()
    command(tmp_path / "elsewhere", "--config", "../run/run.json", "--out", "again")
    first, again = gp.open_run(tmp_path / "run"), gp.open_run(tmp_path / "elsewhere" / "again")
    assert list(first.parameter.values) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert abs(again["dot"] / first["dot"] - 1).max() < 1e-4
    known = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]
    assert (known["model_args"], known["data_args"]) == ({"width": 3}, {"classes": 3})


def test_options_become_arguments_of_load_problem() -> None:
    given = {
        "model": "a:b",
        "config": Path("x"),
        "loss": None,
        "model_arg": ["w=3", "kind=big"],
        "data_arg": [],
    }
    checkpoint = {"checkpoint_key": "ema", "trust_pickle": True, "allow_global": ["argparse.Namespace"]}
    found = gather(given | checkpoint)
    assert found == {
        "model": "a:b",
        "model_args": {"w": 3, "kind": "big"},
        "checkpoint_args": {"key": "ema", "trust_pickle": True, "allow_globals": ["argparse.Namespace"]},
    }
    with pytest.raises(UsageError, match="option of the data is written as name=value, not '=3'"):
        gather({"data_arg": ["=3"]})


RECORDED = {
    "model": "resnet9",
    "model_args": {"width": 4, "norm": "batch"},
    "checkpoint": "mine.pt",
    "checkpoint_args": {"key": "model", "trust_pickle": True},
}


def test_options_of_the_same_thing_are_joined_and_those_of_another_left_behind() -> None:
    again = {"checkpoint_args": {"trust_pickle": True}}
    assert merged(RECORDED, {"model_args": {"width": 8}} | again) == RECORDED | {
        "model_args": {"width": 8, "norm": "batch"}
    }
    other = merged(RECORDED, {"model": "resnet5", "checkpoint": "trained"})
    assert other == {"model": "resnet5", "checkpoint": "trained"}


def test_a_configuration_alone_does_not_run_the_code_in_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="trusts the code in checkpoint 'mine.pt'.* add --trust-pickle"):
        merged(RECORDED, {"model_args": {"width": 8}})


def test_a_configuration_alone_does_not_let_a_checkpoint_build_classes() -> None:
    named = {"checkpoint": "mine.pt", "checkpoint_args": {"allow_globals": ["a.B", "c.D"]}}
    with pytest.raises(
        UsageError, match="lets checkpoint 'mine.pt' build a.B, c.D; .*--allow-global a.B --allow-g"
    ):
        merged(named, {"copies": 10})
    assert merged(named, {"checkpoint_args": {"allow_globals": ["a.B"]}})["checkpoint_args"] == {
        "allow_globals": ["a.B"]
    }
