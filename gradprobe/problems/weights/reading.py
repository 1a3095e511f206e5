"""Reading a checkpoint: one file, shards or a directory, each by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.directory import Parts, indexed, parts
from gradprobe.problems.weights.formats import recognise
from gradprobe.problems.weights.lazy import read_safetensors
from gradprobe.problems.weights.pickles import plain_pickle, read_trusted, read_zip
from gradprobe.problems.weights.refusals import count, refusal, shortened

PICKLED = ("torch zip", "legacy", "pickle")


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds.

    Attributes:
        value: The state dict, or what it lies in; its tensors may still be on disk.
        files: The files that were read.
        format: What kind of checkpoint it is.
        notes: What a reader of results should know about how it was read.
    """

    value: Any
    files: tuple[Path, ...]
    format: str
    notes: tuple[str, ...] = ()


def read(path: Path, trust_pickle: bool, allow_globals: Sequence[str]) -> Content:
    """What a file or a directory holds.

    Raises:
        UsageError: It is no checkpoint, is damaged, or would run code and was not trusted.
    """
    if path.is_dir():
        found = parts(path)
        if found.where is None:
            kind, value = _file(found.files[0], trust_pickle, allow_globals)
            kinds = [kind]
        else:
            kinds, value = _shards(found, trust_pickle, allow_globals)
        name = f"directory: {kinds[0]}" + (f", {count(len(found.files), 'shard')}" if found.where else "")
        return Content(value, found.files, name, (*found.notes, *_trusted(kinds, trust_pickle)))
    if not path.is_file():
        raise UsageError(f"{path} is neither a file nor a directory; give the file of the weights.")
    if recognise(path) == "index":
        found = indexed(path)
        kinds, value = _shards(found, trust_pickle, allow_globals)
        name = f"{kinds[0]}, {count(len(found.files), 'shard')}"
        return Content(value, found.files, name, _trusted(kinds, trust_pickle))
    kind, value = _file(path, trust_pickle, allow_globals)
    lightning = isinstance(value, Mapping) and "pytorch-lightning_version" in value
    return Content(
        value, (path,), kind + (", Lightning" if lightning else ""), _trusted([kind], trust_pickle)
    )


def sha256(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, that of what ``sha256sum`` prints for them in the order of their names."""
    sums = []
    for file in sorted(files):
        with file.open("rb") as stream:
            sums.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(sums) == 1:
        return sums[0]
    lines = "".join(f"{s}  {f.name}\n" for s, f in zip(sums, sorted(files), strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file(path: Path, trust_pickle: bool, allow_globals: Sequence[str]) -> tuple[str, Any]:
    kind = recognise(path)
    if kind == "safetensors":
        return kind, read_safetensors(path)
    if kind in PICKLED and trust_pickle:
        return kind, read_trusted(path, kind)
    if kind == "torch zip":
        return kind, read_zip(path, allow_globals)
    if kind == "index":
        raise UsageError(f"{path} is an index of shards where a shard was meant; fetch it again.")
    raise plain_pickle(path) if kind == "pickle" else refusal(path, kind)


def _shards(
    found: Parts, trust_pickle: bool, allow_globals: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Each tensor from the shard that the index names for it."""
    read_files = {file: _file(file, trust_pickle, allow_globals) for file in found.files}
    value = {}
    for name, file in (found.where or {}).items():
        shard = read_files[file][1]
        if not isinstance(shard, Mapping) or name not in shard:
            raise UsageError(f"{file} lacks {name!r}, which the index says is in it; fetch it again.")
        value[name] = shard[name]
    beyond = [n for _, shard in read_files.values() for n in shard if n not in value]
    if beyond:
        raise UsageError(
            f"{found.files[0].parent} has tensors in its shards that its index does not name: {shortened(beyond)}; "
            "fetch index and shards of the same version."
        )
    return [kind for kind, _ in read_files.values()], value


def _trusted(kinds: Sequence[str], trust_pickle: bool) -> tuple[str, ...]:
    if not trust_pickle:
        return ()
    if any(k in PICKLED for k in kinds):
        return ("The pickle was trusted: code in the file may have run while it was read.",)
    return ("The pickle was to be trusted, but there is none: no code of the file ran.",)
