"""Putting tensors that fit into the model: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradprobe.problems.weights.fit import Fit, memory_of
from gradprobe.problems.weights.lazy import LazyTensor
from gradprobe.problems.weights.refusals import count
from gradprobe.problems.weights.state import is_extra
from gradprobe.problems.weights.table import CheckpointError, Row


def fill(module: nn.Module, fit: Fit, name: str) -> list[str]:
    """Read the tensors of a fit and load them; the module is as before if that fails.

    Args:
        module: The model.
        fit: A comparison without a difference.
        name: What to call the checkpoint in errors.

    Returns:
        Sentences on types that were changed.

    Raises:
        CheckpointError: Tied tensors differ in the file, a buffer that the model does not save has other values in
            it, or the model's own code refuses the weights.
    """
    state = {here: _read(fit.have[there]) for here, there in fit.names.pairs.items()}
    casts = _casts(fit, state, name)
    _check_tied(fit, state, name)
    _check_unsaved(fit, name)
    state |= {here: state[other] for here, other in fit.tied.items()}
    state |= {here: fit.want[here].detach() for here in fit.kept}
    tensors = {k: v for k, v in fit.want.items() if isinstance(v, torch.Tensor)}
    before = {k: v.detach().clone() for k, v in tensors.items()} if _has_own_code(module) else {}
    try:
        module.load_state_dict(state, strict=True)
    except BaseException as error:
        with torch.no_grad():
            for k, v in before.items():
                tensors[k].copy_(v)
        if not isinstance(error, Exception):
            raise
        first = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{name} fits the model, but the model's own code refuses it: {first}."
        ) from error
    return casts


def _read(value: Any) -> Any:
    tensor = value.read() if isinstance(value, LazyTensor) else value
    return tensor.to_dense() if isinstance(tensor, torch.Tensor) and tensor.is_sparse else tensor


def _has_own_code(module: nn.Module) -> bool:
    """Whether anything but torch's own copying takes part in loading, so that it may fail halfway."""
    return any(
        m._load_state_dict_pre_hooks
        or m._load_state_dict_post_hooks
        or not type(m)._load_from_state_dict.__module__.startswith("torch.")
        or type(m).set_extra_state is not nn.Module.set_extra_state
        for m in module.modules()
    )


def _check_tied(fit: Fit, state: Mapping[str, Any], name: str) -> None:
    """Refuse a file whose values differ where the model has one tensor: the last would win, unseen."""
    first: dict[Any, str] = {}
    for here in (h for h in state if not is_extra(h)):
        other = first.setdefault(memory_of(fit.want[here]), here)
        if other != here and not torch.equal(state[other], state[here]):
            rows = [Row("shape", here, f"tied to {other}", "other values", other)]
            raise CheckpointError(
                f"{name} does not fit the model: {other!r} and {here!r} are one tensor in the model but differ in "
                "the file, so it was saved from a model without tied weights; build the model like that.",
                rows,
            )


def _check_unsaved(fit: Fit, name: str) -> None:
    """Refuse a file with other values of a buffer that the model does not save: it would compute with its own."""
    for there, buffer in fit.unsaved.items():
        found = _read(fit.have[there])
        same = found.shape == buffer.shape and torch.equal(buffer.detach().cpu().to(found.dtype), found)
        if not same:
            raise CheckpointError(
                f"{name} does not fit the model: {there!r} is a buffer that the model makes by itself, and its "
                "values in the file are others; build the model as it was, or leave the buffer out of the file.",
                [Row("unexpected", there, "other values", str(list(found.shape)))],
            )


def _casts(fit: Fit, state: Mapping[str, Any], name: str) -> list[str]:
    """Which types of the file are changed to the model's, and whether that keeps every number.

    Raises:
        CheckpointError: A number is too large for the model's type.
    """
    counts: dict[tuple[torch.dtype, torch.dtype], int] = {}
    for here in (h for h in fit.names.pairs if not is_extra(h)):
        old, new = fit.have[fit.names.pairs[here]].dtype, fit.want[here].dtype
        if old == new:
            continue
        counts[old, new] = counts.get((old, new), 0) + 1
        if not _holds(new, old) and _too_large(state[here], new):
            row = Row("type", here, str(new), str(old), fit.names.pairs[here])
            raise CheckpointError(
                f"{name} does not fit the model: {here!r} has numbers of {old} that are too large for the model's "
                f"{new}; build the model in the type of the file.",
                [row],
            )
    said = []
    for (old, new), number in counts.items():
        exact = "exactly" if _holds(new, old) or not new.is_floating_point | new.is_complex else "rounded"
        names = " to ".join(str(t).removeprefix("torch.") for t in (old, new))
        said.append(f"{count(number, 'tensor')} converted from {names} ({exact}).")
    return said


def _too_large(value: torch.Tensor, new: torch.dtype) -> bool:
    """Whether a number wraps around or becomes infinite in a smaller type."""
    if new.is_complex:
        return _too_large(torch.view_as_real(value), new.to_real())
    if new.is_floating_point:
        wide = value.to(torch.float64)
        return bool((wide.isfinite() & ~wide.to(new).to(torch.float64).isfinite()).any())
    return not torch.equal(value.to(new).to(value.dtype), value)


def _holds(new: torch.dtype, old: torch.dtype) -> bool:
    """Whether a type has every number of another; torch's promotion does not know all types."""
    if old == torch.bool:
        return True
    if new.is_floating_point or new.is_complex:
        one, other = torch.finfo(new), torch.finfo(old)
        return one.eps <= other.eps and one.max >= other.max and one.tiny <= other.tiny
    if new == torch.bool:
        return False
    return torch.iinfo(new).min <= torch.iinfo(old).min and torch.iinfo(new).max >= torch.iinfo(old).max
