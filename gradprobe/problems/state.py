"""What a forward leaves behind in a module besides its parameters, and how it is put back.

Spiking networks keep membrane potentials, caches keep keys, counters count: kept from one forward to the next, they
would make each copy depend on those before it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

_MISSING = object()
_OWN = set(nn.Module().__dict__) - {"training"} | {"_flat_weights", "_flat_weight_refs"}
"""Attributes in which torch itself keeps parameters (recurrent modules once more), buffers, submodules and hooks."""

_CACHES = ("_flat_weights", "_flat_weight_refs")
"""Attributes of torch's recurrent modules that hold their parameters once more; each forward renews them itself."""

_CONTAINERS: tuple[type, ...] = (list, tuple, dict, set, collections.deque)


@dataclass
class Kept:
    """Attributes that a forward changes, with their values from before.

    Attributes:
        attributes: Module, attribute and value; the value is missing if there was no such attribute.
        buffers: Module, name and value of the buffers that a forward replaces by new tensors.
    """

    attributes: list[tuple[nn.Module, str, Any]] = field(default_factory=list)
    buffers: list[tuple[nn.Module, str, torch.Tensor | None]] = field(default_factory=list)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Give attributes (and buffers that were None) their values back afterwards, whatever happens."""
        try:
            yield
        finally:
            for module, name, value in self.attributes:
                if value is _MISSING:
                    module.__dict__.pop(name, None)
                else:
                    module.__dict__[name] = _map(torch.Tensor.clone, value)
            for module, name, value in self.buffers:
                if value is None:
                    module._buffers[name] = None


class Watch:
    """The state of a module before a forward.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.before = [(m, _map(_itself, _attributes(m)), dict(m._buffers)) for m in module.modules()]
        self.tensors = [
            (t, t._version, t.detach().clone()) for _, state, _ in self.before for t in _tensors(state)
        ]

    def changes(self) -> Kept:
        """What a forward since then has changed, with the values from before."""
        clones = {id(t): clone for t, version, clone in self.tensors if t._version != version}
        kept = Kept()
        for module, state, buffers in self.before:
            now = _attributes(module)
            for name in dict.fromkeys([*state, *now]):
                old, new = state.get(name, _MISSING), now.get(name, _MISSING)
                if not _same(old, new) or any(id(t) in clones for t in _tensors(old)):
                    kept.attributes.append((module, name, _map(lambda t: clones.get(id(t), t), old)))
            for name, buffer in buffers.items():
                if module._buffers.get(name) is not buffer:
                    kept.buffers.append((module, name, buffer))
        return kept


def kept_on_graphs(module: nn.Module) -> list[torch.Tensor]:
    """Tensors in attributes and buffers that hang on a graph of the user's: they can be neither copied nor used."""
    every = [
        t
        for m in module.modules()
        for t in [*_tensors(_attributes(m)), *m._buffers.values()]
        if t is not None
    ]
    return [t for t in every if t.grad_fn is not None]


@dataclass(frozen=True)
class Listed:
    """A list in a class that holds a module.

    Attributes:
        cls: The class.
        attribute: Name of the list.
        module: The user's module.
        twin: What stands for it.
    """

    cls: type
    attribute: str
    module: nn.Module
    twin: nn.Module


def class_lists(module: nn.Module, twin: nn.Module) -> list[Listed]:
    """Lists in classes through which a forward reaches the modules of a model, as snntorch's resets do."""
    found = []
    for one, other in zip(module.modules(), twin.modules(), strict=True):
        for cls in type(one).__mro__:
            for name, value in vars(cls).items():
                if isinstance(value, list) and any(item is one for item in value):
                    found.append(Listed(cls, name, one, other))
    return found


@contextmanager
def standing_in(listed: list[Listed]) -> Iterator[None]:
    """Have the twin's modules in those lists in place of the user's, for the length of a forward.

    In a worker process the user's are not there; the twin's are all the same.
    """
    before = {(x.cls, x.attribute): list(getattr(x.cls, x.attribute)) for x in listed}
    try:
        for x in listed:
            items = getattr(x.cls, x.attribute)
            items[:] = [item for item in items if item is not x.module] + [x.twin]
        yield
    finally:
        for (cls, name), items in before.items():
            getattr(cls, name)[:] = items


def _itself(t: torch.Tensor) -> torch.Tensor:
    return t


def _attributes(module: nn.Module) -> dict[str, Any]:
    skipped = _OWN.union(_CACHES) if isinstance(module, nn.RNNBase) else _OWN
    return {name: value for name, value in module.__dict__.items() if name not in skipped}


def _map(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same plain containers anew, with a function applied to their tensors; other objects stay as they are."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) is dict:
        return {k: _map(function, v) for k, v in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_map(function, v) for v in value)
    if type(value) is collections.deque:
        return collections.deque((_map(function, v) for v in value), value.maxlen)
    return value


def _same(one: Any, other: Any) -> bool:
    """Whether it is the same value; numbers and texts may be other objects."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if type(one) in (list, tuple, collections.deque):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, (int, float, complex, str, bytes, set)) and one == other


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if type(value) is dict else value if type(value) in _CONTAINERS else ()
    return [t for item in items for t in _tensors(item)]
