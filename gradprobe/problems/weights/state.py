"""The state dict in what a checkpoint holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from gradprobe.core.errors import UsageError, described, unknown
from gradprobe.problems.weights.lazy import LazyTensor
from gradprobe.problems.weights.refusals import count, shortened

KNOWN = (
    "state_dict model_state_dict model_state model module net network weights params parameters state"
).split()
EMA = re.compile(r"(^|[^a-z])(ema|swa)([^a-z]|$)|average|shadow|teacher", re.IGNORECASE)
DEPTH = 3


@dataclass(frozen=True)
class State:
    """A state dict.

    Attributes:
        entries: Name -> tensor, read or not; extra states of modules are whatever they are.
        key: Where it lay in the checkpoint, or None if it was the checkpoint.
        notes: What was left aside.
    """

    entries: dict[str, Any]
    key: str | None = None
    notes: tuple[str, ...] = ()


def find_state(value: Any, key: str | None, name: str) -> State:
    """The state dict, by a key or as the only one there is.

    Args:
        value: What the checkpoint holds.
        key: Dotted path to it; its last part may be a prefix of names in a state dict. None to look for it.
        name: What to call the checkpoint in errors.

    Raises:
        UsageError: There is none, or there are several.
    """
    if key is not None:
        found = as_state(_at(value, key))
        if found is None:
            known = [k for k, _ in candidates(value)]
            raise unknown(f"checkpoint key (of {name})", key, known or _keys(value))
        return State(found, key)
    if (found := as_state(value)) is not None:
        return State(found)
    several = candidates(value)
    if not several:
        raise UsageError(_nothing(value, name))
    return _chosen(several, name)


def as_state(value: Any) -> dict[str, Any] | None:
    """A state dict as plain dict of tensors, or None if this is none."""
    if isinstance(value, nn.Module):
        return dict(value.state_dict())
    if not isinstance(value, Mapping) or not value:
        return None
    found = {k: torch.from_numpy(v) if _numeric(v) else v for k, v in value.items()}
    if not all(isinstance(k, str) for k in found):
        return None
    fits = [isinstance(v, (torch.Tensor, LazyTensor)) for k, v in found.items() if not is_extra(k)]
    return found if any(fits) and all(fits) else None


def is_extra(name: str) -> bool:
    """Whether this entry is a module's ``get_extra_state``, which may be anything."""
    return name.rsplit(".", 1)[-1] == "_extra_state"


def candidates(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Paths and state dicts at the lowest depth that has any."""
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(DEPTH):
        level = [
            (f"{path}.{k}" if path else str(k), v)
            for path, inner in level
            if isinstance(inner, Mapping) and not _optimizer(inner)
            for k, v in inner.items()
        ]
        if found := [(path, state) for path, v in level if (state := as_state(v)) is not None]:
            return found
    return []


def _chosen(several: list[tuple[str, dict[str, Any]]], name: str) -> State:
    """The only one; or the only plain one; or the only plain one with a usual name."""
    plain = [c for c in several if not EMA.search(c[0])]
    usual = [c for c in plain if c[0].rsplit(".", 1)[-1].lower() in KNOWN]
    for some in (several, plain, usual):
        if len(some) == 1:
            key, state = some[0]
            aside = [f"{k!r} ({count(len(s), 'tensor')})" for k, s in several if k != key]
            notes = (f"{key!r} was taken; also in the file: {shortened(aside)}.",) if aside else ()
            return State(state, key, notes)
    listed = shortened([f"{key} ({count(len(state), 'tensor')})" for key, state in several], 10)
    raise UsageError(
        f"{name} holds several state dicts; choose one with --checkpoint-key (key=...): {listed}."
    )


def _at(value: Any, key: str) -> Any:
    """What lies at a dotted path; keys may hold dots, and a path may end in a prefix of names."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, Mapping):
        return None
    if key in value:
        return value[key]
    for k, inner in value.items():
        if isinstance(k, str) and key.startswith(f"{k}.") and isinstance(inner, (Mapping, nn.Module)):
            return _at(inner, key[len(k) + 1 :])
    return {k[len(key) + 1 :]: v for k, v in value.items() if isinstance(k, str) and k.startswith(f"{key}.")}


def _optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)


def _numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype.isnative


def _keys(value: Any) -> list[str]:
    return [str(k) for k in value] if isinstance(value, Mapping) else []


def _nothing(value: Any, name: str) -> str:
    """The sentence for a checkpoint without a state dict."""
    if isinstance(value, torch.Tensor):
        return f"{name} holds one tensor of shape {list(value.shape)}, not named weights; save model.state_dict()."
    if not isinstance(value, Mapping):
        return f"{name} holds {described(value)}, not a state dict; save model.state_dict()."
    if not value:
        return (
            f"{name} holds an empty state dict: the model that was saved had no tensors, or none was given."
        )
    if _optimizer(value) or any(_optimizer(v) for v in value.values()):
        return (
            f"{name} holds the state of an optimizer and no weights; give the file with the model's weights."
        )
    odd = [
        f"{k!r} ({described(v)})" for k, v in value.items() if not isinstance(v, (torch.Tensor, LazyTensor))
    ]
    if len(odd) < len(value):
        return (
            f"{name} mixes {count(len(value) - len(odd), 'tensor')} with other things ({shortened(odd)}); save "
            "model.state_dict() alone."
        )
    return f"{name} holds no state dict, only {shortened(odd)}; save model.state_dict()."
