"""Which operations of a forward depend on noise, and what share of the forward they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, first_tensor, intercept, tensors, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.engine.draw import Draw
from gradprobe.engine.price import makes_new, price

_READ = ("numpy", "tolist", "__array__", "data_ptr", "__dlpack__")
"""What reads numbers out of tensors where no dispatch mode sees it."""


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of one forward, by what they depend on.

    Attributes:
        spent: Set of sources, as a number with a bit for each -> multiply-adds of the operations that depend on
            exactly these.
        bits: (where, layer) -> bit of the noise there.
    """

    spent: dict[int, float]
    bits: dict[tuple[str, str], int]

    @property
    def whole(self) -> float:
        """Multiply-adds of the whole forward."""
        return sum(self.spent.values())

    def of(self, draw: Draw, layers: Sequence[Layer]) -> float:
        """Multiply-adds that depend on the noise of a draw.

        Args:
            draw: The draw.
            layers: The layers that are noisy together.
        """
        noisy = sum(self.bits[draw.where, layer.name] for layer in layers)
        return sum(n for sources, n in self.spent.items() if sources & noisy)

    def share(self, draw: Draw, layers: Sequence[Layer]) -> float:
        """Those of :meth:`of`, relative to the whole forward."""
        return self.of(draw, layers) / self.whole


def count_operations(problem: Runnable, layers: Sequence[Layer]) -> Operations:
    """Run one forward without noise and follow where noise in each layer would go.

    The output of each call of a layer (for activation noise) and the parameters of each layer (for weight noise)
    are marked, and every operation hands the marks of its inputs on to its results: an operation belongs to the
    copies of a layer if it carries the layer's mark. Marks stick to memory, so that operations in place and views
    keep them; where that cannot tell two parts of a tensor apart the share is too large, never too small. Once a
    number is read out of a marked tensor (``item``, control flow), everything after it carries the mark.
    Drawing the noise and adding it is not counted, nor is what an estimator makes of the losses.

    Args:
        problem: The problem; nothing of it changes, but one forward is counted.
        layers: All of its layers.

    Raises:
        UsageError: The forward cannot be followed.
    """
    bits = {
        (where, layer.name): 1 << (2 * i + j)
        for i, layer in enumerate(layers)
        for j, where in enumerate(("activations", "weights"))
    }
    trail = _Trail()

    def edit(call: Call, output: Any) -> Any:
        old = first_tensor(output)
        if old is None:
            return output
        new = old.clone()  # what shares its memory with the output is not noisy
        trail.mark(new, trail.marks_of(old) | bits["activations", call.layer])
        return with_first_tensor(output, new)

    noisy = [layer for layer in layers if layer.activations]
    try:
        with torch.no_grad(), intercept(problem.twin, paths(noisy), edit) as calls:
            values = problem.parameters
            own = {p: values[p].clone() for layer in layers for p in layer.parameters}
            for layer in layers:
                for p in layer.parameters:
                    trail.mark(own[p], bits["weights", layer.name])
            calls.restart()
            with trail, _Reading(trail):
                problem.evaluate(own)
    except Exception as error:  # whatever it is: a price is not worth a run
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"the operations of the forward cannot be followed ({type(error).__name__}: {reason})"
        ) from error
    if not sum(trail.spent.values()):
        raise UsageError("the forward has no operations that could be counted")
    return Operations(dict(trail.spent), bits)


class _Trail(TorchDispatchMode):
    """Hands marks on from the inputs of every operation to its results, and adds up what operations cost."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler, which takes seconds

    def __init__(self) -> None:
        super().__init__()
        self.spent: defaultdict[int, float] = defaultdict(float)
        self.everywhere = 0
        self._marks: dict[int, tuple[object, int]] = {}

    def mark(self, tensor: torch.Tensor, marks: int) -> None:
        """Add marks to the memory of a tensor."""
        key, holder = _memory(tensor)
        # the weak reference keeps the address from being given to other memory
        holder, known = self._marks.get(key, (holder, 0))
        self._marks[key] = (holder, known | marks)

    def marks_of(self, value: Any) -> int:
        """Marks of all tensors in a value."""
        found = self.everywhere
        for t in tensors(value):
            found |= self._marks.get(_memory(t)[0], (None, 0))[1]
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        marks = self.everywhere if makes_new(func, args, kwargs) else self.marks_of((args, kwargs))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.everywhere |= marks
        self.spent[marks] += price(func, args, kwargs, result)
        if marks:
            for t in tensors((result, _written(func, args, kwargs))):
                self.mark(t, marks)
        return result


class _Reading(TorchFunctionMode):
    """Notices numbers that are read out of tensors behind the back of dispatch."""

    def __init__(self, trail: _Trail) -> None:
        super().__init__()
        self.trail = trail

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _READ:
            self.trail.everywhere |= self.trail.marks_of(args)
        return func(*args, **(kwargs or {}))


def _memory(tensor: torch.Tensor) -> tuple[int, object]:
    """What tells the memory of a tensor from others, and what keeps that from being used again."""
    try:
        weak = StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse tensors have several
        return id(tensor), tensor
    return weak.cdata, weak


def _written(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments that an operation writes to."""
    found = []
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[i] if i < len(args) else kwargs.get(argument.name))
    return found
