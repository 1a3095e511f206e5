"""Files that are no checkpoint, each made as it would come about, with the sentence that is right for it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def _cut(file: Path, part: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])


def _torch_zip(file: Path) -> None:
    torch.save(model().state_dict(), file)
    _cut(file, 0.6)


def _safetensors(part: float) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        save_file(model().state_dict(), file)
        _cut(file, part)

    return make


def _broken_header(file: Path) -> None:
    save_file(model().state_dict(), file)
    file.write_bytes(
        file.read_bytes().replace(b'"shape"', b'"shope"', 1).replace(b"data_offsets", b"data_offsats", 1)
    )


def _hdf5(file: Path) -> None:
    import h5py

    with h5py.File(file, "w") as h5:
        h5["dense/kernel"] = np.zeros((3, 4))


def _zip(**content: bytes) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)

    return make


def _npz(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, a=np.zeros(3))


def _npy(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


def _torchscript(file: Path) -> None:
    # what torch.jit.save writes; calling it would warn that it is deprecated
    _zip(**{"ts/data.pkl": b"\x80\x02}.", "ts/constants.pkl": b"\x80\x02).", "ts/code/__torch__.py": b""})(
        file
    )


def _exported(file: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)


def _joblib(file: Path) -> None:
    import joblib

    joblib.dump({"a": np.zeros(3)}, file)


def _joblib_packed(file: Path) -> None:
    import joblib

    joblib.dump({"a": np.zeros(3)}, file, compress=3)


def _tar(file: Path) -> None:
    data = io.BytesIO(b"weights")
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("model.pt")
        info.size = 7
        archive.addfile(info, data)


def _msgpack(file: Path) -> None:
    import msgpack

    file.write_bytes(msgpack.packb({"params": {"Dense_0": {"kernel": b"\x00" * 8}}}))


def _fifo(file: Path) -> None:
    import os

    os.mkfifo(file)


def _folder(*names: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        for name in names:
            (file / name).parent.mkdir(parents=True, exist_ok=True)
            (file / name).write_bytes(b"x")
        file.mkdir(exist_ok=True)

    return make


def _lacking_shard(file: Path) -> None:
    file.mkdir()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = list(model().state_dict())
    (file / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip(names, shards * 2, strict=True))})
    )
    (file / shards[0]).write_bytes(b"x")


def _shard_elsewhere(file: Path) -> None:
    file.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))


def _several(file: Path) -> None:
    torch.save({"a_net": model().state_dict(), "discriminator": model().state_dict()}, file)


def _optimizer(file: Path) -> None:
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, "optimizer": optimizer.state_dict()}, file)


def _whole(file: Path) -> None:
    torch.save(model(), file)


def _config_class(file: Path) -> None:
    import argparse

    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": model().state_dict()}, file)


def _protocol_4(file: Path) -> None:
    torch.save(model().state_dict(), file, pickle_protocol=4)


def _legacy(file: Path) -> None:
    torch.save(model().state_dict(), file, _use_new_zipfile_serialization=False)


def _rewritten_header(file: Path) -> None:
    """A type of safetensors that torch has no dtype for."""
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [8], "data_offsets": [0, 8]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 8)


def _written(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


def _saved(value: object) -> Callable[[Path], None]:
    return lambda file: torch.save(value, file)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10\n\x0e\x00\xff\x00"
TF_INDEX = b"\x00" * 3 + b"\x01leveldb" + b"\x00" * 40 + struct.pack("<Q", 0xDB4775248B80FB57)

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_written(b""), r"is empty \(0 bytes\).*fetch it again"),
    "zeros": (_written(bytes(5000)), r"zero bytes alone \(5,000 bytes\)"),
    "git-lfs": (_written(LFS), "Git-LFS pointer.*run 'git lfs pull'"),
    "web page": (_written(b"\n<!DOCTYPE html><html>404</html>"), "is a web page.*the download failed"),
    "text": (_written(b"Entry not found"), "is text .*'Entry not found'"),
    "truncated zip": (_torch_zip, r"is a zip that ends too early \([\d,]+ bytes\)"),
    "empty zip": (_zip(), "is an empty zip"),
    "other zip": (_zip(**{"a/readme.txt": b"hello"}), "zip archive of other things.*unpack it"),
    "safetensors cut in its data": (_safetensors(0.9), "safetensors file that ends too early"),
    "safetensors cut in its header": (_safetensors(0.2), "safetensors file that ends too early"),
    "safetensors with a broken header": (_broken_header, "its header cannot be read"),
    "safetensors of a packed type": (_rewritten_header, "holds 'a' as F8_E8M0"),
    "hdf5": (_hdf5, "HDF5 file, as Keras"),
    "keras 3": (_zip(**{"config.json": b"{}", "model.weights.h5": b""}), "HDF5 file, as Keras"),
    "npz": (_npz, r"NumPy archive \(\.npz\)"),
    "npy": (_npy, r"one NumPy array \(\.npy\)"),
    "onnx": (_written(ONNX), "is an ONNX model"),
    "tensorflow lite": (_written(b"\x1c\x00\x00\x00TFL3\x14\x00"), "TensorFlow Lite"),
    "gguf": (_written(b"GGUF\x03\x00\x00\x00" + bytes(16)), "GGUF file of llama.cpp"),
    "torchscript": (_torchscript, "TorchScript archive, which is a program"),
    "exported program": (_exported, r"program of torch.export \(\.pt2\)"),
    "joblib": (_joblib, "joblib or scikit-learn"),
    "joblib, compressed": (_joblib_packed, "compressed with zlib, as joblib"),
    "gzip": (_written(gzip.compress(b"weights")), "compressed with gzip; unpack it first"),
    "xz": (_written(b"\xfd7zXZ\x00\x00"), "compressed archive; unpack it first"),
    "tar": (_tar, "tar archive; unpack it first"),
    "tensorflow index": (_written(TF_INDEX), "index of a TensorFlow checkpoint"),
    "msgpack": (_msgpack, "msgpack file, as Flax"),
    "config": (_written(b'{"model_type": "bert"}'), "configuration of a model, not its weights"),
    "adapter config": (_written(b'{"peft_type": "LORA"}'), "configuration of an adapter"),
    "json": (_written(b'[{"loss": 3}]'), "is a JSON file, not weights"),
    "index of files elsewhere": (_shard_elsewhere, "'../../etc/passwd', which is not a file beside it"),
    "pickle": (_written(pickle.dumps({"a": np.zeros(2)})), "plain pickle that names numpy.*was not read"),
    "pickle of protocol 0": (_written(pickle.dumps({"a": 1}, protocol=0)), "plain pickle, which can run code"),
    "torch before 1.6": (_legacy, r"before torch 1\.6 .*weights_only=True\), new\)"),
    "whole model": (_whole, r"whole pickled model \(torch\.nn\.modules"),
    "class of a configuration": (_config_class, "names classes.*--allow-global argparse.Namespace"),
    "pickle protocol 4": (_protocol_4, "saved with pickle protocol 4.*save it again"),
    "optimizer": (_optimizer, "state of an optimizer and no weights"),
    "optimizer alone": (_saved({"state": {}, "param_groups": []}), "state of an optimizer and no weights"),
    "several networks": (_several, r"several state dicts.*a_net \(4 tensors\), discriminator \(4 tensors\)"),
    "one tensor": (_saved(torch.zeros(3, 2)), r"one tensor of shape \[3, 2\]"),
    "list": (_saved([torch.zeros(2)]), "holds a list, not a state dict"),
    "empty state dict": (_saved({}), "an empty state dict"),
    "tensors and other things": (_saved({"w": torch.zeros(2), "lr": 0.1}), "mixes 1 tensor with other things"),
    "no tensors": (_saved({"epoch": 3}), "no state dict, only 'epoch'"),
    "unknown": (_written(b"\x01\x02\xff\xfe\x00rubbish"), "no checkpoint of a known kind.*01 02 ff fe"),
    "pipe": (_fifo, "neither a file nor a directory"),
    "empty directory": (_folder(), "without a checkpoint .it is empty"),
    "directory of other things": (_folder("readme.md"), "without a checkpoint .it holds readme.md"),
    "directory of several": (_folder("a.pt", "b.ckpt"), "several checkpoints; give one of them: a.pt, b.ckpt"),
    "adapter": (_folder("adapter_config.json", "adapter_model.safetensors"), r"adapters alone \(LoRA"),
    "deepspeed": (_folder("latest", "global_step9/a.pt"), "run its own zero_to_fp32.py"),
    "distributed": (_folder(".metadata", "__0_0.distcp"), "format_utils dcp_to_torch.*dcp_to_torch_save"),
    "fsdp of accelerate": (_folder("pytorch_model_fsdp_0/x"), "accelerate merge-weights"),
    "tensorflow directory": (_folder("checkpoint", "m.ckpt.index", "m.ckpt.data"), "checkpoint of TensorFlow"),
    "saved model": (_folder("saved_model.pb"), "checkpoint of TensorFlow"),
    "flax directory": (_folder("flax_model.msgpack"), "Flax or Orbax"),
    "cache": (_folder("snapshots/1234/x", "refs/main"), "directory under its snapshots"),
    "shards without index": (_folder("model-00001-of-00002.safetensors"), "not the index"),
    "shard lacking": (_lacking_shard, "lacks 1 of 2 shards: model-00002-of-00002.safetensors"),
}  # fmt: skip
