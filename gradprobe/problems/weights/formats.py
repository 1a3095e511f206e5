"""What kind of file this is, by its content; the name of a file is never believed."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How ``torch.save`` began its files before they were zips: a pickled long, after two bytes of protocol."""

TF_INDEX = bytes.fromhex("57fb808b247547db")
HEAD = 65_536
LONGEST_HEADER = 100_000_000  # what safetensors itself accepts
MAGIC = {
    b"version https://git-lfs": "lfs",
    b"PK\x05\x06": "empty zip",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"GGUF": "gguf",
    b"lmgg": "gguf",
    b"tjgg": "gguf",
    b"\x93NUMPY": "npy",
    b"\x1f\x8b": "gzip",
    b"BZh": "packed",
    b"\xfd7zXZ\x00": "packed",
    b"\x28\xb5\x2f\xfd": "packed",
    b"7z\xbc\xaf\x27\x1c": "packed",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}
_INDEX_KEYS = {"weight_map": "index", "peft_type": "adapter config"}
_CONFIG_KEYS = ("architectures", "model_type", "_class_name", "transformers_version")


def recognise(path: Path) -> str:
    """Kind of a file, such as ``"safetensors"``, ``"torch zip"``, ``"lfs"`` or ``"unknown"``.

    Only bytes are compared and headers parsed; nothing is unpickled.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
    if not head or not head.strip(b"\x00"):
        return "zeros" if head else "empty"
    if kind := _safetensors_kind(path, head, size):  # first: a length may look like any magic of two bytes
        return kind
    if head[:4] == b"PK\x03\x04":
        return _zip_kind(path)
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    if head[4:8] == b"TFL3":
        return "tflite"
    if tail == TF_INDEX:
        return "tf index"
    return _pickle_kind(path, head) or _rest(path, head)


def json_of(path: Path) -> Any:
    """Content of a JSON file, or None if it is none, or too large for an index."""
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST_HEADER else None
    except (ValueError, RecursionError):
        return None


def header_length(head: bytes) -> int | None:
    """Length of a safetensors header, which begins behind its eight bytes of length, or None."""
    length = int.from_bytes(head[:8], "little")
    return length if head[8:9] == b"{" and length <= LONGEST_HEADER else None


def _zip_kind(path: Path) -> str:
    try:
        if not zipfile.is_zipfile(path):  # its table of contents is at its end
            return "truncated zip"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # what a damaged table leads to is not documented: ValueError, NotImplementedError, ...
        return "broken zip"
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if ends & {"serialized_exported_program.json", "archive_format"}:
        return "exported"
    if "data.pkl" in ends:
        scripted = "constants.pkl" in ends or any(n.split("/")[1:2] == ["code"] for n in names)
        return "torchscript" if scripted else "torch zip"
    if "model.weights.h5" in ends:
        return "hdf5"
    return "npz" if names and all(n.endswith(".npy") for n in names) else "zip"


def _pickle_kind(path: Path, head: bytes) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        if head[2:14] == LEGACY:
            return "legacy"
        return "joblib" if b"joblib" in head or b"sklearn" in head else "pickle"
    if head[:1] in b"(c]}" and path.stat().st_size <= HEAD:  # protocols 0 and 1 have no magic number
        try:
            return "pickle" if sum(1 for _ in pickletools.genops(head)) > 1 else None
        except Exception:
            return None
    return None


def _safetensors_kind(path: Path, head: bytes, size: int) -> str | None:
    length = header_length(head)
    if length is None:
        return None
    if 8 + length > size:
        return "truncated safetensors"
    with path.open("rb") as stream:
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return "broken safetensors"
    return "truncated safetensors" if 8 + length + max(ends, default=0) > size else "safetensors"


def _rest(path: Path, head: bytes) -> str:
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begins[:1] == b"<":
        return "html"
    if begins[:1] in (b"{", b"["):
        return _json_kind(path)
    if re.match(
        rb"\x08[\x01-\x14][\x12\x1a\x22\x2a\x3a]", head
    ):  # the version, then producer, domain or graph
        return "onnx"
    if re.match(
        rb"([\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9]", head, re.DOTALL
    ):  # a map that begins with text
        return "msgpack"
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return "tf data"
    text = head.decode("utf-8", errors="replace").rstrip("\ufffd")
    return "text" if all(c.isprintable() or c.isspace() for c in text) else "unknown"


def _json_kind(path: Path) -> str:
    data = json_of(path)
    if not isinstance(data, dict):
        return "json"
    found = [kind for key, kind in _INDEX_KEYS.items() if key in data]
    return found[0] if found else "config" if any(k in data for k in _CONFIG_KEYS) else "json"
