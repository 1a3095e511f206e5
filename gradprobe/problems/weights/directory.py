"""Directories: which files hold the weights, or what the directory is when none does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.formats import json_of
from gradprobe.problems.weights.refusals import shortened

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_BESIDE = re.compile(
    r"(^|_)(training_args|optimizer|optim_states|scheduler|scaler|rng_state|random_states|adapter_model|sampler)"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)$")

_KINDS = (
    (
        ("zero_to_fp32.py", "global_step*", "*_optim_states.pt"),
        "is a DeepSpeed checkpoint, which is cut among processes; run its own zero_to_fp32.py DIRECTORY OUT and "
        "give OUT",
    ),
    (
        (".metadata", "*.distcp"),
        "is a checkpoint of torch.distributed.checkpoint; convert it with python -m "
        "torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY weights.pt (in Python: dcp_to_torch_save)",
    ),
    (
        ("pytorch_model_fsdp_0",),
        "is an FSDP checkpoint of accelerate; merge it with accelerate merge-weights DIRECTORY OUT and give OUT",
    ),
    (
        ("adapter_config.json", "adapter_model.*"),
        "holds adapters alone (LoRA, PEFT), not the model's weights; merge them into the base model "
        "(merge_and_unload) and save that",
    ),
    (
        ("saved_model.pb", "*ckpt*.index", "model-*.index", "tf_model.h5", "keras_metadata.pb"),
        "is a checkpoint of TensorFlow; convert it to PyTorch first",
    ),
    (
        ("flax_model.msgpack", "_CHECKPOINT_METADATA", "manifest.ocdbt", "_METADATA"),
        "is a checkpoint of Flax or Orbax; convert it to PyTorch first",
    ),
    (
        ("snapshots",),
        "is a cache of Hugging Face; give the directory under its snapshots that holds the weights",
    ),
)


@dataclass(frozen=True)
class Parts:
    """Files that together are a checkpoint.

    Attributes:
        files: The files, in the order of their names.
        where: Name of a tensor -> its file, of an index; None if there is one file.
        notes: What was left aside.
    """

    files: tuple[Path, ...]
    where: dict[str, Path] | None = None
    notes: tuple[str, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether Hugging Face's libraries find these files by themselves."""
        return self.where is not None or self.files[0].name in SINGLE


def has_weights(directory: Path) -> bool:
    """Whether any file there is one of weights, or names where they are."""
    names = [entry.name for entry in directory.iterdir()]
    return any(n in INDEXES or (n.endswith(WEIGHTS) and not _BESIDE.search(n)) for n in names)


def parts(directory: Path) -> Parts:
    """The weight files of a directory: Hugging Face's names, an accelerate checkpoint, or its only file.

    Raises:
        UsageError: There are none (named for what it is instead), several, or a shard is missing.
    """
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (directory / single).exists():
            other = [n for n in (*SINGLE, *INDEXES) if n != single and (directory / n).exists()]
            notes = (f"{directory.name} also holds {shortened(other)}, which was not used.",) if other else ()
            return Parts((directory / single,), None, notes)
        if (directory / index).exists():
            return indexed(directory / index)
    names = sorted(entry.name for entry in directory.iterdir())
    for patterns, text in _KINDS:
        if any(next(directory.glob(p), None) is not None for p in patterns):
            raise UsageError(f"{directory} {text}.")
    files = [n for n in names if n.endswith(WEIGHTS) and not _BESIDE.search(n)]
    shards = [n for n in files if _SHARD.search(n)]
    if shards:
        raise UsageError(
            f"{directory} holds shards ({shortened(shards)}) but not the index that says which tensor is where "
            f"(such as {INDEXES[0]}); fetch it too."
        )
    if len(files) == 1:
        return Parts((directory / files[0],))
    if files:
        raise UsageError(f"{directory} holds several checkpoints; give one of them: {shortened(files, 10)}.")
    inside = f"it holds {shortened(names, 8)}" if names else "it is empty"
    raise UsageError(
        f"{directory} is a directory without a checkpoint ({inside}); give the file of the weights, or a directory "
        f"with {SINGLE[0]}."
    )


def indexed(index: Path) -> Parts:
    """The shards of an index of Hugging Face.

    Raises:
        UsageError: The index is damaged, names files elsewhere, or a shard is missing.
    """
    data = json_of(index)
    given: Any = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(given, dict) or not given or not all(isinstance(v, str) for v in given.values()):
        raise UsageError(f"{index} is no index of shards: it has no weight_map; fetch it again.")
    shards = sorted(set(given.values()))
    outside = [s for s in shards if Path(s).name != s or "\\" in s]
    if outside:
        raise UsageError(
            f"{index} names the shard {outside[0]!r}, which is not a file beside it; do not trust it."
        )
    missing = [s for s in shards if not (index.parent / s).is_file()]
    if missing:
        raise UsageError(
            f"{index.parent} lacks {len(missing)} of {len(shards)} shards: {shortened(missing)}; fetch them too."
        )
    files = tuple(index.parent / s for s in shards)
    return Parts(files, {name: index.parent / shard for name, shard in given.items()})
