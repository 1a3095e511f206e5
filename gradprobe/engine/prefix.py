"""What runs before the noisy layer is the same for every copy: it is run once and replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, intercept, map_tensors, tensors
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.engine.draw import Draw


class Prefix(TorchFunctionMode):
    """Every result of torch up to the noisy layer, in order, from one clean forward.

    In a forward inside :meth:`replayed`, torch functions return what is recorded instead of running, until
    :meth:`end`. Only tensors that something still refers to at that point are kept (the rest of the forward can
    use no others); of the others just the shape.

    Args:
        record: Runs a clean forward ``with`` this as a context; it must call ``end`` where the noise comes in.
    """

    def __init__(self, record: Callable[[Prefix], None]) -> None:
        super().__init__()
        self._results: list[tuple[str, Any]] = []
        self._next: int | None = None
        self._recording = True
        self._kept: list[tuple[torch.Tensor, int]] = []
        record(self)
        if self._recording:
            raise UsageError("the layer did not run")

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Replay in the forward that runs inside.

        Raises:
            UsageError: The forward is not the recorded one, or has changed what is replayed.
        """
        self._next = 0
        try:
            with self:
                yield
        finally:
            self._next = None
        if any(t._version != version for t, version in self._kept):
            raise UsageError("the model changes a tensor in place that was made before the noisy layer")

    def end(self) -> None:
        """The noise comes in now: from here on everything runs."""
        self._next = None
        if self._recording:
            self._recording = False
            self._results = [(name, _resolved(result)) for name, result in self._results]
            kept = {id(t): t for _, result in self._results for t in tensors(result)}
            self._kept = [(t, t._version) for t in kept.values()]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a torch function, note its result, or return the one that is noted."""
        if self._next is not None:
            if self._next >= len(self._results) or self._results[self._next][0] != _name(func):
                raise UsageError("the forward differs from copy to copy before the noisy layer")
            self._next += 1
            return self._results[self._next - 1][1]
        result = func(*args, **(kwargs or {}))
        if self._recording:
            self._results.append((_name(func), map_tensors(_Reference, result)))
        return result


class _Enough(Exception):
    """Nothing after the noisy layer is to be recorded."""


class _Reference:
    """A tensor, for as long as somebody else holds it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.alive = weakref.ref(tensor)
        self.empty = tensor.new_empty(()).expand(tensor.shape)


def _resolved(value: Any) -> Any:
    if isinstance(value, _Reference):
        tensor = value.alive()
        return value.empty if tensor is None else tensor
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_resolved(v) for v in value))
    if type(value) in (tuple, list):
        return type(value)(_resolved(v) for v in value)
    if type(value) is dict:
        return {k: _resolved(v) for k, v in value.items()}
    return value


def _name(func: Any) -> str:
    return getattr(func, "__qualname__", None) or repr(type(func))


def record(problem: Runnable, draw: Draw, layers: Sequence[Layer], layout: str) -> Prefix:
    """Record what runs before the first of the noisy layers.

    Args:
        problem: The problem.
        draw: The draw: noise on the output of a layer lets the layer itself be replayed too.
        layers: The layers that are noisy together.
        layout: Memory layout of images.

    Raises:
        UsageError: It cannot be recorded.
    """
    weights = draw.where == "weights"
    own = [name for layer in layers for name in layer.parameters] if weights else []
    values = {name: problem.parameters[name].clone() for name in own}  # a forward may change them in place

    def forward(prefix: Prefix) -> None:
        def edit(call: Call, output: Any) -> Any:
            prefix.end()
            raise _Enough

        def start(call: Call) -> bool:
            return bool(edit(call, None)) if weights else False

        with torch.no_grad(), intercept(problem.twin, paths(layers), edit, start) as calls:
            calls.restart()
            with suppress(_Enough), prefix:
                problem.evaluate(values, layout=layout)

    return Prefix(forward)


def before(prefix: Prefix | None, draw: Draw) -> Callable[[Call], bool]:
    """What to do before each call of a layer: under weight noise the replay ends there."""

    def note(call: Call) -> bool:
        if prefix is not None and draw.where == "weights":
            prefix.end()
        return False

    return note
