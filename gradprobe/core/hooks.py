"""Seeing and editing what named modules put out, for the length of one ``with`` (needs torch)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Call:
    """One call of a layer in the forward that is running.

    Attributes:
        layer: Layer name.
        number: How many calls of this layer came before, over all of its modules.
        path: Path of the module that is called.
        args: Positional arguments, as they were before the call.
        kwargs: Keyword arguments, likewise.
    """

    layer: str
    number: int
    path: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None


Edit = Callable[[Call, Any], Any]


class Interception:
    """Counts calls; :meth:`restart` must be called before each forward."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.open: dict[str, list[Call]] = {}

    def restart(self) -> None:
        """Forget the calls of the last forward."""
        self.counts.clear()
        self.open.clear()


@contextmanager
def intercept(
    model: nn.Module,
    layers: Mapping[str, str],
    edit: Edit,
    capture: Callable[[Call], bool] | None = None,
    enter: Callable[[Call], Call] | None = None,
) -> Iterator[Interception]:
    """Hook modules of a model and take the hooks off again, whatever happens.

    Args:
        model: The model to hook.
        layers: Module path -> name of the layer whose calls are counted together.
        edit: Called with the call and its output; what it returns replaces the output.
        capture: Which calls keep (a copy of) their arguments.
        enter: Given the call with its arguments (no copies), returns one whose arguments take their place. Then
            ``edit`` sees what the module itself puts out, before hooks of the user's own.

    Yields:
        The counter of calls.
    """
    state = Interception()
    handles = []

    def before(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            name = layers[path]
            call = Call(name, state.counts.get(name, 0), path)
            state.counts[name] = call.number + 1
            if capture is not None and capture(call):
                call = replace(call, args=copied(args), kwargs=copied(kwargs))
            if enter is None:
                state.open.setdefault(path, []).append(call)
                return None
            call = replace(call, args=args, kwargs=kwargs)
            state.open.setdefault(path, []).append(call)
            entered = enter(call)
            return entered.args, dict(entered.kwargs or {})

        return hook

    def after(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return edit(state.open[path].pop(), output)

        return hook

    try:
        for path in layers:
            module = model.get_submodule(path)
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            first = enter is not None
            handles.append(module.register_forward_hook(after(path), with_kwargs=True, prepend=first))
        yield state
    finally:
        for handle in handles:
            handle.remove()


def copied(value: Any) -> Any:
    """The same structure with every tensor cloned: later in-place operations cannot reach it."""
    return map_tensors(torch.Tensor.clone, value)


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in nested containers; leave the rest as it is.

    Containers are tuples (named ones too), lists, mappings and dataclasses; each keeps its type.
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    return rebuilt(value, lambda item: map_tensors(function, item))


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """A container of the same type with every item changed; what is no container stays as it is."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(change(v) for v in value))
    if type(value) in (tuple, list):
        return type(value)(change(v) for v in value)
    if isinstance(value, Mapping):
        return _mapping(value, change)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(new, field.name, change(getattr(value, field.name)))  # frozen ones too
        return new
    if isinstance(value, (tuple, list)):
        return type(value)(change(v) for v in value)
    return value


def _mapping(value: Mapping[Any, Any], change: Callable[[Any], Any]) -> Any:
    """A mapping of the same type; a dict where that cannot be copied and written to."""
    changed = {k: change(v) for k, v in value.items()}
    if type(value) is dict:
        return changed
    try:
        new: Any = copy.copy(value)
        for key, item in changed.items():
            new[key] = item
    except TypeError:
        return changed
    return new


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested containers, in order."""
    found: list[torch.Tensor] = []

    def see(t: torch.Tensor) -> torch.Tensor:
        found.append(t)
        return t  # a packed sequence cannot be made of anything else

    map_tensors(see, value)
    return found


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first floating tensor of an output: the one that takes the noise."""
    return next((t for t in tensors(output) if t.is_floating_point()), None)


def with_first_tensor(output: Any, new: torch.Tensor) -> Any:
    """The output with its first floating tensor replaced."""
    if isinstance(output, torch.Tensor):
        return new
    old = first_tensor(output)

    def swap(value: Any) -> Any:
        if value is old:
            return new
        return value if isinstance(value, torch.Tensor) else rebuilt(value, swap)

    return swap(output)


@contextmanager
def untouched_globals() -> Iterator[None]:
    """Give back torch's and NumPy's global random states and the attention fast-path switch as they were.

    The fast path is off inside: it is skipped where hooks are attached, so clean and noisy forwards would
    run different kernels, and 1/sigma amplifies their rounding.
    """
    import random

    import numpy as np

    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is to be restored
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False):  # inside it, backprop would give nothing
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_rng_state(cpu)
        if cuda is not None:
            with suppress(RuntimeError):
                torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(numpy_state)  # noqa: NPY002 - likewise
        random.setstate(python_state)
