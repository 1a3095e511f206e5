"""What a forward leaves behind in a module besides its parameters, and how it is put back.

Spiking networks keep membrane potentials, caches keep keys, counters count: kept from one forward to the next, they
would make each copy depend on those before it. What is put back is the contents of each container, not the container:
what two modules share they go on sharing.
"""

from __future__ import annotations

import collections
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

_OWN = set(nn.Module().__dict__) - {"training"} | {"_flat_weights", "_flat_weight_refs"}
"""Attributes in which torch itself keeps parameters (recurrent modules once more), buffers, submodules and hooks."""

_PLAIN = (dict, list, set, collections.deque)
_SEALED = (nn.Module, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
"""What is not looked into: modules are looked at one by one, and code holds no state of a forward."""


@dataclass(frozen=True, eq=False)
class Container:
    """Something whose contents a forward may change.

    Attributes:
        owner: A list, dict, set or deque; or an object (a module) with attributes.
        attributes: Whether it is the attributes of the owner, or its items.
    """

    owner: Any
    attributes: bool

    @property
    def place(self) -> Any:
        """What holds the contents."""
        return self.owner.__dict__ if self.attributes else self.owner

    def contents(self) -> Any:
        """What is in it now; of a module what is not torch's own."""
        if not isinstance(self.place, dict):
            return list(self.place)
        skipped = _OWN if self.attributes and isinstance(self.owner, nn.Module) else ()
        return {k: v for k, v in self.place.items() if k not in skipped}

    def fill(self, contents: Any) -> None:
        """Give it its former contents back."""
        place = self.place
        if isinstance(place, dict):
            for key in [k for k in self.contents() if k not in contents]:
                del place[key]
            place.update(contents)
        elif isinstance(place, list):
            place[:] = contents
        else:
            place.clear()
            (place.update if isinstance(place, set) else place.extend)(contents)


@dataclass
class Kept:
    """What a forward changes, with what it was before.

    Attributes:
        contents: Containers and their former contents.
        tensors: Tensors that are changed in place, and their former values.
        buffers: Module, name and value of the buffers that a forward replaces by new tensors.
        names: Names of the attributes of modules that lead to them.
    """

    contents: list[tuple[Container, Any]] = field(default_factory=list)
    tensors: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    buffers: list[tuple[nn.Module, str, torch.Tensor | None]] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Give everything (buffers only if they were None) its former value afterwards, whatever happens."""
        try:
            yield
        finally:
            for container, contents in self.contents:
                container.fill(contents)
            with torch.no_grad():
                for t, value in self.tensors:
                    t.copy_(value)
            for module, name, buffer in self.buffers:
                if buffer is None:
                    module._buffers[name] = None


class Watch:
    """The state of a module before a forward.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.buffers = [(m, dict(m._buffers)) for m in module.modules()]
        found = _Reached(module)
        self.contents = [(container, container.contents()) for container in found.containers]
        self.tensors = [(t, t._version, t.detach().clone()) for t in found.tensors]

    def changes(self) -> Kept:
        """What a forward since then has changed, with what it was before."""
        kept = Kept(
            [(x, before) for x, before in self.contents if not _same(before, x.contents())],
            [(t, clone) for t, version, clone in self.tensors if t._version != version],
        )
        for module, buffers in self.buffers:
            kept.buffers += [(module, n, b) for n, b in buffers.items() if module._buffers.get(n) is not b]
        kept.names = self._names(kept)
        return kept

    def _names(self, kept: Kept) -> tuple[str, ...]:
        inside = {id(x.owner) for x, _ in kept.contents if not isinstance(x.owner, nn.Module)}
        inside |= {id(t) for t, _ in kept.tensors}
        former = {id(x.owner): before for x, before in kept.contents if isinstance(x.owner, nn.Module)}
        names = []
        for path, module in self.module.named_modules():
            own = _attributes(module)
            was = former.get(id(module), own)
            for name in dict.fromkeys([*was, *own]):
                one = _Reached(module, {name: was[name]} if name in was else {})
                reached = {id(x) for x in [*(c.owner for c in one.containers), *one.tensors]}
                if name not in was or name not in own or not _is(was[name], own[name]) or reached & inside:
                    names.append(f"{path}.{name}" if path else name)
        return tuple(names)


class _Reached:
    """Containers and tensors that can be reached from the attributes of a module and of those in it.

    Args:
        module: The module.
        attributes: Only these attributes of it alone.
    """

    def __init__(self, module: nn.Module, attributes: dict[str, Any] | None = None) -> None:
        self.containers: list[Container] = []
        self.tensors: list[torch.Tensor] = []
        self._seen: set[int] = {id(t) for t in [*module.parameters(), *module.buffers()]}
        waiting = list((attributes or {}).values())
        for m in module.modules() if attributes is None else ():
            self.containers.append(Container(m, attributes=True))
            waiting += _attributes(m).values()
        while waiting:
            waiting += self._inside(waiting.pop())

    def _inside(self, value: Any) -> list[Any]:
        if isinstance(value, tuple):
            return list(value)
        if id(value) in self._seen or isinstance(value, _SEALED):
            return []
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
            return []
        items: list[Any] = []
        if isinstance(value, _PLAIN):
            self.containers.append(Container(value, attributes=False))
            items += value.values() if isinstance(value, dict) else value
        if isinstance(getattr(value, "__dict__", None), dict):
            self.containers.append(Container(value, attributes=True))
            items += vars(value).values()
        return items


def kept_on_graphs(module: nn.Module) -> list[torch.Tensor]:
    """Tensors in attributes and buffers that hang on a graph of the user's: they can be neither copied nor used."""
    every = [*_Reached(module).tensors, *module.buffers()]
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


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in module.__dict__.items() if name not in _OWN}


def _same(before: Any, now: Any) -> bool:
    """Whether contents are the same; numbers and texts may be other objects."""
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_is(v, now[k]) for k, v in before.items())
    return len(before) == len(now) and all(map(_is, before, now))


def _is(one: Any, other: Any) -> bool:
    plain = (int, float, complex, str, bytes, tuple, frozenset)
    if one is other:
        return True
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is, one, other))
    return type(one) is type(other) and isinstance(one, plain) and one == other
