"""What a function keeps from one call to the next, as far as it can be seen: closure, globals, attributes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import random
import types
from collections.abc import Callable, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import nn

DEEPEST = 4
"""Levels of containers, objects and helper functions that are looked into."""

LONGEST = 10_000
"""Items of a container up to which each is looked at."""

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_LIBRARIES = ("torch", "numpy", "gradprobe")
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
        seen.discard(id(function))
        _note({type(function).__name__: function}, found, seen, depth)
        return _look(vars(type(function)).get("__call__"), found, seen, depth - 1)
    function = inspect.unwrap(function)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    nonlocals = {name: cell.cell_contents for name, cell in cells if _filled(cell)}
    used = _names(function.__code__)
    own_globals = {name: v for name, v in function.__globals__.items() if name in used}
    defaults = {f"default of {function.__name__} {i}": v for i, v in enumerate(function.__defaults__ or ())}
    for values in (nonlocals, own_globals, defaults, vars(function)):
        _note(values, found, seen, depth)


def _filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> set[str]:
    """Names that code uses, functions inside it included."""
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def _note(values: Mapping[str, Any], found: dict[str, str], seen: set[int], depth: int) -> None:
    for name, value in values.items():
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            if str(getattr(value, "__module__", "")).partition(".")[0] in _LIBRARIES:
                continue
            _look(value, found, seen, depth - 1)
        elif not isinstance(value, _CODE):
            _digest(name, value, found, seen, depth)


def _digest(name: str, value: Any, found: dict[str, str], seen: set[int], depth: int) -> None:
    """Note a value, or what is in it."""
    if isinstance(value, _GENERATORS):
        found[f"{name} (generator)"] = _hashed(_state(value))
    elif isinstance(value, torch.Tensor):
        found[name] = _hashed(_bytes(value))
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
    """What is in a value, by name; of something very long only how long it is."""
    if isinstance(value, Sized) and not isinstance(value, nn.Module) and len(value) > LONGEST:
        return {f"len({name})": len(value)}
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


def _bytes(t: torch.Tensor) -> bytes:
    dense = t.detach().to_dense() if t.is_sparse else t.detach()
    if not dense.numel() or dense.is_meta:
        return b""
    return bytes(dense.cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _hashed(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
