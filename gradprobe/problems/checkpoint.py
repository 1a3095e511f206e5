"""Loading weights without running code from the file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.causes import misfit
from gradprobe.problems.weights.filling import fill
from gradprobe.problems.weights.fit import compare
from gradprobe.problems.weights.reading import read, sha256
from gradprobe.problems.weights.state import find_state

SHIPPED = {"early": "resnet5-digits-early.safetensors", "trained": "resnet5-digits-trained.safetensors"}
"""Checkpoints that come with gradprobe, by name: ResNet-5 on digits after one epoch, and trained."""


def find_checkpoint(given: str | Path) -> Path:
    """The file or directory of a path, or of a shipped name.

    Raises:
        UsageError: There is neither.
    """
    path = Path(given).expanduser()
    if str(given) in SHIPPED and not path.exists():
        return Path(str(resources.files("gradprobe.problems") / "checkpoints" / SHIPPED[str(given)]))
    if "://" in str(given):
        raise UsageError(
            f"{str(given)!r} is an address; gradprobe downloads nothing: give the downloaded file."
        )
    if not path.exists():
        if Path(f"{path}.index").exists():
            raise UsageError(f"{path} is a checkpoint of TensorFlow; convert it to PyTorch first.")
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f" Did you mean {str(path.parent / near[0])!r}?" if near else ""
        raise UsageError(
            f"there is no checkpoint {str(given)!r}.{hint} Give a file, a directory, or one of {', '.join(SHIPPED)}."
        )
    return path


def load_checkpoint(
    module: nn.Module,
    given: str | Path,
    *,
    key: str | None = None,
    strip: str = "auto",
    trust_pickle: bool = False,
    allow_globals: Sequence[str] = (),
) -> dict[str, Any]:
    """Load a checkpoint strictly into a module: every tensor fits, or none is loaded.

    The format is found by content: safetensors, a zip of ``torch.save`` (read as weights alone), files of
    Lightning, and directories or shard indexes of Hugging Face. Names and shapes are compared before tensors are
    read. Tolerated, and said: tied weights that the file holds once, counters ``num_batches_tracked`` that old
    files lack, counters of averaged models, buffers that the model does not save if their values
    are those of the model, and other number types.

    Args:
        module: The module; changed only if every tensor fits.
        given: A file, a directory, or a shipped name.
        key: Dotted path to the state dict in the file, such as ``"state_dict"`` or ``"ema.module"``; its end may
            be a prefix of names, as in ``"state_dict.model"``, which takes those tensors alone. By default the
            only one that there is.
        strip: ``"auto"`` takes the prefixes off (``module.``, ``_orig_mod.``, ...) or puts the one in front with
            which most names and shapes match; ``"none"`` takes names as they are; anything else is the prefix to
            take off.
        trust_pickle: Unpickle files that are not weights alone. **This runs whatever code is in the file.** It
            is never done unless asked for.
        allow_globals: Full names of classes that the file may build, such as
            ``["omegaconf.listconfig.ListConfig"]``, for this call only. Their modules are imported, which runs
            the code of those modules: name only what you have installed and trust.

    Returns:
        JSON-able facts: ``checkpoint`` (name), ``checkpoint_sha256`` (of several files: of the lines that
        ``sha256sum`` prints for them in the order of names), ``checkpoint_format``, and where they apply
        ``checkpoint_key``, ``checkpoint_stripped``, ``checkpoint_added``, ``checkpoint_trusted``,
        ``checkpoint_allowed`` and ``checkpoint_notes`` (sentences).

    Raises:
        UsageError: There is no such file, it is no checkpoint, or would run code.
        CheckpointError: It does not fit the module; its ``table`` holds every name. A ``UsageError`` too.

    Example:
        >>> module = gp.load_problem(checkpoint="early").module
        >>> gp.load_checkpoint(module, "trained")["checkpoint"]
        'resnet5-digits-trained.safetensors'
    """
    path = find_checkpoint(given)
    try:
        content = read(path, trust_pickle, allow_globals)
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error
    state = find_state(content.value, key, str(path))
    fit = compare(module, state.entries, strip)
    if not fit.fits:
        raise misfit(fit, str(path), state.key)
    digest = sha256(content.files)
    notes = [*content.notes, *state.notes, *fit.notes, *fill(module, fit, str(path))]
    facts = {
        "checkpoint": Path(os.path.abspath(path)).name,  # not resolved: caches link names to hashes
        "checkpoint_sha256": digest,
        "checkpoint_format": content.format,
        "checkpoint_key": state.key,
        "checkpoint_stripped": fit.names.stripped,
        "checkpoint_added": fit.names.added,
        "checkpoint_trusted": bool(trust_pickle),
        "checkpoint_allowed": list(allow_globals),
        "checkpoint_notes": notes,
    }
    return {k: v for k, v in facts.items() if v}
