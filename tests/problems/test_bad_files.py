"""Files that are no weights: each is named for what it is, in one sentence, and the model stays as it is."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradprobe import CheckpointError, UsageError, load_checkpoint
from gradprobe.problems.weights.formats import recognise
from tests.problems.bad_files import BAD, model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.export warns of its own code
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    make, says = BAD[kind]
    make(tmp_path / "given.safetensors")
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UsageError, match=says) as caught:
        load_checkpoint(net, tmp_path / "given.safetensors")
    assert not isinstance(caught.value, CheckpointError)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "given.safetensors") in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_sentences_differ() -> None:
    assert len({says for _, says in BAD.values()}) >= 50


@pytest.mark.parametrize("kind", ["web page", "git-lfs", "truncated zip", "gzip", "onnx", "torchscript"])
def test_trust_does_not_open_what_is_no_pickle(kind: str, tmp_path: Path) -> None:
    make, says = BAD[kind]
    make(tmp_path / "given.pt")
    with pytest.raises(UsageError, match=says):
        load_checkpoint(model(), tmp_path / "given.pt", trust_pickle=True)


@pytest.mark.parametrize("length", [0x78, 0x178, 0x280, 0x1F90, 0x8B20, 0x5A48, 0x4B50])
def test_a_header_whose_length_looks_like_a_magic_number_is_safetensors(length: int, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    (tmp_path / "a").write_bytes(struct.pack("<Q", length) + header + bytes(4))
    assert recognise(tmp_path / "a") == "safetensors"


def test_a_damaged_zip_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"not a pickle")
        archive.writestr("archive/version", "3\n")
    with pytest.raises(UsageError, match="is damaged or of an unknown version"):
        load_checkpoint(model(), tmp_path / "a.pt")


def test_a_flipped_bit_among_the_weights_of_a_zip_is_found(tmp_path: Path) -> None:
    """torch.load would give other weights without a word."""
    net = model()
    torch.save(net.state_dict(), tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(net[0].weight.detach().numpy().tobytes()) + 3] ^= 0x10
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UsageError, match="is a damaged zip"):
        load_checkpoint(model(), tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "pickle"])
def test_random_damage_gives_a_sentence_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Whatever is damaged, in 200 ways each: no other error, no change, and no code of the file."""
    state = model().state_dict()
    if kind == "safetensors":
        save_file(state, tmp_path / "good")
    elif kind == "pickle":
        (tmp_path / "good").write_bytes(pickle.dumps(state))
    else:
        torch.save(
            {"net": state, "epoch": 3}, tmp_path / "good", _use_new_zipfile_serialization=kind == "zip"
        )
    good, rng = np.frombuffer((tmp_path / "good").read_bytes(), np.uint8), np.random.default_rng(0)
    for _ in range(200):
        bad = good[: len(good) if rng.random() < 0.8 else rng.integers(len(good))].copy()
        for place in rng.integers(max(len(bad), 1), size=rng.integers(1, 6)):
            bad[place : place + 1] = rng.integers(256)
        (tmp_path / "bad").write_bytes(bad.tobytes())
        net = model()
        before = {k: v.clone() for k, v in net.state_dict().items()}
        try:
            load_checkpoint(net, tmp_path / "bad")
        except UsageError:
            assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        else:  # the damage was in what is not used; safetensors has no checksums
            assert kind in ("zip", "safetensors")
            assert kind != "zip" or all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_a_zip_that_was_packed_again_is_read_right(tmp_path: Path) -> None:
    """Its parts are compressed, so that they cannot be mapped from disk."""
    net = model()
    torch.save(net.state_dict(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part), zipfile.ZIP_DEFLATED)
    other = model()
    load_checkpoint(other, tmp_path / "b.pt")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())


def test_a_file_called_code_is_no_script(tmp_path: Path) -> None:
    """torch.save names the parts of its zip after the file."""
    torch.save(model().state_dict(), tmp_path / "code.pt")
    assert load_checkpoint(model(), tmp_path / "code.pt")["checkpoint_format"] == "torch zip"


def test_nested_json_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    assert recognise(tmp_path / "a.json") == "json"
    header = b'{"a":' * 20_000
    (tmp_path / "b").write_bytes(struct.pack("<Q", len(header)) + header)
    assert recognise(tmp_path / "b") == "broken safetensors"


def test_names_that_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(model().state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "m.ckpt.index").touch()
    monkeypatch.chdir(tmp_path)
    for given, says in [
        ("wieghts.safetensors", "Did you mean 'weights.safetensors'"),
        ("https://example.org/a.pt", "downloads nothing"),
        ("m.ckpt", "checkpoint of TensorFlow"),
        ("nowhere/a.pt", "there is no checkpoint 'nowhere/a.pt'. Give a file"),
    ]:
        with pytest.raises(UsageError, match=says):
            load_checkpoint(model(), given)
