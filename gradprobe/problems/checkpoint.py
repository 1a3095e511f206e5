"""Loading weights without running code from the file."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from gradprobe.core.errors import UsageError

SHIPPED = {"early": "resnet5-digits-early.safetensors", "trained": "resnet5-digits-trained.safetensors"}
"""Checkpoints that come with gradprobe, by name: ResNet-5 on digits after one epoch, and trained."""


def find_checkpoint(given: str | Path) -> Path:
    """The file of a path, or of a shipped name.

    Raises:
        UsageError: There is neither.
    """
    path = Path(given)
    if str(given) in SHIPPED and not path.exists():
        return Path(str(resources.files("gradprobe.problems") / "checkpoints" / SHIPPED[str(given)]))
    if not path.exists():
        raise UsageError(
            f"there is no checkpoint {str(given)!r}; give a file, or one of {', '.join(SHIPPED)}."
        )
    if path.is_dir():
        raise UsageError(f"{str(given)!r} is a directory; give the checkpoint file in it.")
    return path


def load_checkpoint(module: nn.Module, given: str | Path) -> dict[str, str]:
    """Load a checkpoint strictly into a module.

    Args:
        module: The module; changed only if every tensor fits.
        given: A safetensors file, a file of ``torch.save`` that holds a state dict of tensors, or a shipped
            name.

    Returns:
        File name and SHA-256.

    Raises:
        UsageError: The file is no checkpoint, or does not fit the module.
    """
    path = find_checkpoint(given)
    state = read_state(path)
    _check_fit(module.state_dict(), state, path)
    module.load_state_dict(state, strict=True)
    return {"checkpoint": path.name, "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, its format found from its content.

    Raises:
        UsageError: It is neither safetensors nor a zip of ``torch.save`` with tensors only.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
    try:
        if head[:4] == b"PK\x03\x04":
            state = torch.load(path, map_location="cpu", weights_only=True)
        elif head[8:9] == b"{":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            raise UsageError(
                f"{path} is neither a safetensors file nor a zip written by torch.save (it has {path.stat().st_size}"
                " bytes); save the weights with safetensors.torch.save_file(model.state_dict(), path)."
            )
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read as weights ({type(error).__name__}); gradprobe runs no code from a checkpoint. "
            "Save the weights with safetensors.torch.save_file(model.state_dict(), path)."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UsageError(f"{path} holds more than a state dict of tensors; save model.state_dict() alone.")
    return dict(state)


def _check_fit(want: Mapping[str, torch.Tensor], have: Mapping[str, torch.Tensor], path: Path) -> None:
    missing = [name for name in want if name not in have]
    extra = [name for name in have if name not in want]
    shapes = [n for n in want if n in have and want[n].shape != have[n].shape]
    if not (missing or extra or shapes):
        return
    parts = [
        f"{path.name} does not fit the model: {len(want) - len(missing) - len(shapes)} of {len(want)} match"
    ]
    if shapes:
        n = shapes[0]
        parts.append(f"{n!r} is {list(have[n].shape)} in the file and {list(want[n].shape)} in the model")
    if missing:
        near = difflib.get_close_matches(missing[0], extra, n=1)
        parts.append(f"{missing[0]!r} is missing" + (f" (the file has {near[0]!r})" if near else ""))
    elif extra:
        parts.append(f"{extra[0]!r} is not in the model")
    raise UsageError("; ".join(parts) + ". Choose the model and options that the file was saved from.")
