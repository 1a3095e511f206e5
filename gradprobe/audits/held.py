"""What a function keeps from one call to the next, as far as it can be seen: closure, globals, attributes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import random
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

DEEPEST = 4
"""Levels of containers, objects and helper functions that are looked into."""

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_CODE = (types.ModuleType, type, types.BuiltinFunctionType)


def held(function: Callable[..., Any]) -> dict[str, str]:
    """Digest of each thing that a function can reach and change, by the name that the user knows it by."""
    found: dict[str, str] = {}
    _look(function, found, set(), DEEPEST)
    return found


def is_generator(place: str) -> bool:
    """Whether a place of :func:`held` holds a generator of random numbers."""
    return place.endswith(" (generator)")


def _look(function: Any, found: dict[str, str], seen: set[int], depth: int) -> None:
    if id(function) in seen or depth == 0:
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        _note({f"argument {k}": v for k, v in function.keywords.items()}, found, seen, depth)
        _note({f"argument {i}": v for i, v in enumerate(function.args)}, found, seen, depth)
        return _look(function.func, found, seen, depth)
    if isinstance(function, types.MethodType):
        _note({"self": function.__self__}, found, seen, depth)
        return _look(function.__func__, found, seen, depth)
    if not isinstance(function, types.FunctionType):
        _note({type(function).__name__: function}, found, seen, depth)
        return _look(vars(type(function)).get("__call__"), found, seen, depth - 1)
    try:
        variables = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return
    defaults = {f"default of {function.__name__} {i}": v for i, v in enumerate(function.__defaults__ or ())}
    own = vars(function)
    for values in (variables.nonlocals, variables.globals, defaults, own):
        _note(values, found, seen, depth)


def _note(values: Mapping[str, Any], found: dict[str, str], seen: set[int], depth: int) -> None:
    for name, value in values.items():
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            _look(value, found, seen, depth - 1)
        elif not isinstance(value, _CODE):
            _digest(name, value, found, seen, depth)


def _digest(name: str, value: Any, found: dict[str, str], seen: set[int], depth: int) -> None:
    """Note a value, or what is in it."""
    if isinstance(value, _GENERATORS):
        found[f"{name} (generator)"] = _hashed(_state(value))
    elif isinstance(value, torch.Tensor):
        found[name] = _hashed(value.detach().cpu().double().numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, np.ndarray):
        found[name] = _hashed(value.tobytes())
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        found[name] = _hashed(repr(value).encode())
    elif depth and id(value) not in seen:
        seen.add(id(value))
        for inner, item in _items(name, value).items():
            if not isinstance(item, (*_CODE, types.FunctionType, types.MethodType)):
                _digest(inner, item, found, seen, depth - 1)


def _items(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, nn.Module):
        return {f"{name}.{k}": v for k, v in value.state_dict().items()}
    if isinstance(value, Mapping):
        return {f"{name}[{k!r}]": v for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return {f"{name}[{i}]": v for i, v in enumerate(value)} | {f"len({name})": len(value)}
    own = getattr(value, "__dict__", None)
    return {f"{name}.{k}": v for k, v in own.items()} if isinstance(own, dict) else {}


def _state(value: Any) -> bytes:
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state).encode()
    return repr(value.get_state() if isinstance(value, np.random.RandomState) else value.getstate()).encode()


def _hashed(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
