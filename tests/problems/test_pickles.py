"""A file that would run code is refused, and the code has not run: the marker it would write is not there."""

from __future__ import annotations

import argparse
import builtins
import importlib
import io
import json
import os
import pickle
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gradprobe import UsageError, load_checkpoint
from tests.problems.bad_files import model


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *words: str) -> None:
        self.words = (function, words)

    def __reduce__(self) -> tuple:
        return self.words


def shell(marker: Path) -> Runs:
    return Runs(os.system, f"touch '{marker}'")


def python(marker: Path) -> Runs:
    return Runs(builtins.exec, f"open({str(marker)!r}, 'w').close()")


def as_zip(value: object, file: Path) -> None:
    torch.save(value, file)


def as_zip_of_protocol_4(value: object, file: Path) -> None:
    torch.save(value, file, pickle_protocol=4)


def as_legacy(value: object, file: Path) -> None:
    torch.save(value, file, _use_new_zipfile_serialization=False)


def as_pickle(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(value))


def as_pickle_of_protocol_0(value: object, file: Path) -> None:
    file.write_bytes(pickle.dumps({"code": value["code"]} if isinstance(value, dict) else value, protocol=0))


def as_lightning(value: object, file: Path) -> None:
    state = {f"model.{k}": v for k, v in model().state_dict().items()}
    torch.save({"pytorch-lightning_version": "2.5", "state_dict": state, "callbacks": value}, file)


def as_hugging_face(value: object, file: Path) -> None:
    file.mkdir()
    torch.save(value, file / "pytorch_model.bin")


def as_shard(value: object, file: Path) -> None:
    file.mkdir()
    torch.save(value, file / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(model().state_dict(), "pytorch_model-00001-of-00001.bin")}
    (file / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def as_named_safetensors(value: object, file: Path) -> None:
    torch.save(value, file.with_name("given.safetensors"))
    file.with_name("given.safetensors").rename(file)


FORMS = [
    as_zip,
    as_zip_of_protocol_4,
    as_legacy,
    as_pickle,
    as_pickle_of_protocol_0,
    as_lightning,
    as_hugging_face,
    as_shard,
    as_named_safetensors,
]


@pytest.mark.parametrize("allowed", [(), ("argparse.Namespace",)], ids=["none allowed", "another allowed"])
@pytest.mark.parametrize("code", [shell, python])
@pytest.mark.parametrize("form", FORMS)
def test_code_is_refused_and_has_not_run(
    form: Callable, code: Callable, allowed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1"
    )  # what torch offers to switch the safe reader off
    marker = tmp_path / "marker"
    form({**model().state_dict(), "code": code(marker)}, tmp_path / "given")
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_checkpoint(net, tmp_path / "given", allow_globals=allowed)
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    if form is not as_legacy:
        assert "would run code" in str(caught.value)
        assert ("system" if code is shell else "exec") in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_marker_is_written_when_the_file_is_trusted(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    for form in (as_zip, as_legacy, as_pickle):
        marker = tmp_path / f"marker of {form.__name__}"
        form({"state_dict": model().state_dict(), "code": python(marker)}, tmp_path / "given.pt")
        facts = load_checkpoint(model(), tmp_path / "given.pt", trust_pickle=True)
        assert marker.exists()
        assert facts["checkpoint_trusted"] is True
        assert "The pickle was trusted" in facts["checkpoint_notes"][0]


def test_the_unsafe_reader_is_never_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: used.append(k["weights_only"]) or load(*a, **k))
    monkeypatch.setattr(pickle, "load", lambda *_: used.append(False))
    for form in FORMS:
        form({**model().state_dict(), "code": shell(tmp_path / "marker")}, tmp_path / form.__name__)
        with pytest.raises(UsageError):
            load_checkpoint(model(), tmp_path / form.__name__)
    (tmp_path / "damaged").write_bytes(b"\x80\x02broken")
    with pytest.raises(UsageError):
        load_checkpoint(model(), tmp_path / "damaged")
    assert used == [True] * 6


def test_an_archive_of_another_pickle_is_refused(tmp_path: Path) -> None:
    """The pickle of a zip that torch.save did not write."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(shell(tmp_path / "marker")))
        archive.writestr("archive/version", "3\n")
    with pytest.raises(UsageError, match=r"would run code when it is read \(posix\.system\)"):
        load_checkpoint(model(), tmp_path / "a.pt")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.getattr", "subprocess.Popen"])
def test_what_runs_code_cannot_be_allowed(name: str, tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "a.pt")
    with pytest.raises(UsageError, match="cannot be allowed"):
        load_checkpoint(model(), tmp_path / "a.pt", allow_globals=[name])


def test_a_class_is_allowed_for_one_call(tmp_path: Path) -> None:
    net = model()
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": net.state_dict()}, tmp_path / "a.pt")
    other, before = model(), torch.serialization.get_safe_globals()
    facts = load_checkpoint(other, tmp_path / "a.pt", allow_globals=["argparse.Namespace"])
    assert facts["checkpoint_allowed"] == ["argparse.Namespace"]
    assert facts["checkpoint_key"] == "state_dict"
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())
    assert torch.serialization.get_safe_globals() == before
    with pytest.raises(UsageError, match="--allow-global argparse.Namespace"):
        load_checkpoint(other, tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["nowhere.Config"], "cannot be imported here.*omegaconf"),
        (["argparse.Namespce"], "cannot be imported here"),
        (["Config"], "cannot be imported here"),
        ("argparse.Namespace", r"a list of names, such as \['argparse\.Namespace'\]"),
    ],
)
def test_names_that_cannot_be_allowed(names: Any, says: str, tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "a.pt")
    with pytest.raises(UsageError, match=says):
        load_checkpoint(model(), tmp_path / "a.pt", allow_globals=names)


def test_trusted_files_load(tmp_path: Path) -> None:
    net = model()
    torch.save(net, tmp_path / "whole.pt")
    as_legacy(net.state_dict(), tmp_path / "legacy.pt")
    as_pickle({"model": {k: v.numpy() for k, v in net.state_dict().items()}}, tmp_path / "arrays.pkl")
    save_file(net.state_dict(), tmp_path / "safe")
    for name, kind in {"whole.pt": "torch zip", "legacy.pt": "legacy", "arrays.pkl": "pickle"}.items():
        other = model()
        facts = load_checkpoint(other, tmp_path / name, trust_pickle=True)
        assert facts["checkpoint_format"] == kind
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())
    notes = load_checkpoint(model(), tmp_path / "safe", trust_pickle=True)["checkpoint_notes"]
    assert "no code of the file ran" in notes[0]


def test_a_trusted_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8c\x07nowhere\x8c\x01X\x93.")
    with pytest.raises(UsageError, match="module 'nowhere', which is not installed"):
        load_checkpoint(model(), tmp_path / "a.pkl", trust_pickle=True)
    stream = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), stream, _use_new_zipfile_serialization=False)
    (tmp_path / "b.pt").write_bytes(stream.getvalue()[:-8])
    with pytest.raises(UsageError, match="is damaged"):
        load_checkpoint(model(), tmp_path / "b.pt", trust_pickle=True)


@pytest.mark.parametrize("name", ["numpy.testing._private.utils.runstring", "torch.utils.collect_env.run"])
def test_a_function_is_neither_offered_nor_allowed(name: str, tmp_path: Path) -> None:
    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    as_zip({"state_dict": model().state_dict(), "x": Runs(function, "touch ran")}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="names functions that it could call") as caught:
        load_checkpoint(model(), tmp_path / "a.pt")
    assert "--allow-global" not in str(caught.value)
    with pytest.raises(UsageError, match="is a function.*cannot be allowed"):
        load_checkpoint(model(), tmp_path / "a.pt", allow_globals=[name])


Start = subprocess.Popen


def test_what_runs_code_cannot_be_allowed_by_another_name(tmp_path: Path) -> None:
    as_zip({"state_dict": model().state_dict()}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match="runs code of the file's choice"):
        load_checkpoint(model(), tmp_path / "a.pt", allow_globals=["tests.problems.test_pickles.Start"])


def test_numpys_own_rebuilders_can_be_allowed(tmp_path: Path) -> None:
    net = model()
    as_zip({"state_dict": net.state_dict(), "best": np.float64(0.5)}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"--allow-global numpy\S*scalar") as caught:
        load_checkpoint(net, tmp_path / "a.pt")
    names = re.findall(r"--allow-global (\S+)", str(caught.value))
    assert load_checkpoint(net, tmp_path / "a.pt", allow_globals=names)["checkpoint_allowed"] == names
