"""The twin that is run in the user's module's place: it shares values and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError, described
from gradprobe.problems.state import Listed, class_lists, kept_on_graphs


def unwrapped(module: Any) -> nn.Module:
    """The plain module inside ``torch.compile`` and ``DataParallel``.

    Raises:
        UsageError: It is no module, or one that cannot be probed.
    """
    if isinstance(module, type) or not isinstance(module, nn.Module):
        raise UsageError(f"a problem needs a torch.nn.Module, not {described(module)}.")
    while isinstance(module, nn.DataParallel) or hasattr(module, "_orig_mod"):
        module = module.module if isinstance(module, nn.DataParallel) else module._orig_mod
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError("a scripted module takes no hooks; give the module that it was made from.")
    return module


@dataclass
class Twin:
    """A copy of a module that is run in its place.

    Attributes:
        module: The copy.
        widened: Tensors of the user's that are run in a wider precision, and the copies of them that are run.
        listed: Lists in classes in which the copy's modules must stand for the user's.
    """

    module: nn.Module
    widened: list[tuple[torch.Tensor, torch.Tensor]]
    listed: list[Listed]

    def follow(self) -> None:
        """Take over the values of tensors that are not shared."""
        with torch.no_grad():
            for theirs, ours in self.widened:
                ours.copy_(theirs)


def make_twin(module: nn.Module, mode: str, precision: str) -> Twin:
    """A copy of a module that shares its parameters and buffers.

    Args:
        module: The user's module; not changed.
        mode: ``"eval"`` or ``"as-is"``.
        precision: The least precision to run in, or ``"as-is"``; see :data:`PRECISIONS`.

    Raises:
        UsageError: It cannot be copied, or its parameters have no values yet, or whole numbers for values.
    """
    shared = shared_tensors(module)
    _check_values(module)
    stand: dict[int, Any] = {id(t): t for t in shared}
    stand |= {id(t): t.detach() for t in kept_on_graphs(module)}
    widened = [(t, _widened(t, precision)) for t in shared if widen(t, precision) is not t]
    stand |= {id(theirs): ours for theirs, ours in widened}
    try:
        twin = copy.deepcopy(module, stand)
    except Exception as error:
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({error}); gradprobe runs a copy so that yours stays "
            "untouched. Give the model a __deepcopy__, or build it without what cannot be copied."
        ) from error
    return Twin(twin.eval() if mode == "eval" else twin, widened, class_lists(module, twin))


PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "as-is": None}
"""The least precision in which a model is run, by name."""


def widen(t: torch.Tensor, precision: str) -> torch.Tensor:
    """A tensor in the least precision that is asked for; itself if it has that, or holds no real numbers."""
    least = PRECISIONS[precision]
    narrow = least is not None and t.is_floating_point() and t.dtype.itemsize < least.itemsize
    return t.to(least) if narrow else t


def _widened(t: torch.Tensor, precision: str) -> torch.Tensor:
    wide = widen(t.detach(), precision)
    return nn.Parameter(wide, requires_grad=t.requires_grad) if isinstance(t, nn.Parameter) else wide


def _check_values(module: nn.Module) -> None:
    if any(nn.parameter.is_lazy(t) for t in shared_tensors(module)):
        raise UsageError("the model has uninitialised (lazy) parameters; run it once on a batch first.")
    for name, p in module.named_parameters():
        if p.is_meta:
            raise UsageError(
                f"parameter {name!r} is on the meta device, without values; load the checkpoint first."
            )
        if not (p.is_floating_point() or p.is_complex()):
            raise UsageError(
                f"parameter {name!r} holds whole numbers (a quantised model), which have no gradient; load the model "
                "without quantisation."
            )


def shared_tensors(module: nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def same_tensors(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Whether they are the same objects in the same order."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def kinds(shared: list[torch.Tensor]) -> list[tuple[Any, ...]]:
    """What may change of a tensor although it stays the same object, besides its values."""
    return [(t.shape, t.dtype, t.device, t.requires_grad) for t in shared]


class Swapped(nn.Module):
    """Runs a function while ``functional_call`` has swapped values in: a backward pass inside sees them too."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, function: Callable[[], Any]) -> Any:
        """Run it."""
        return function()


def places(model: nn.Module, names: Mapping[int, str]) -> dict[str, list[str]]:
    """Name of a parameter or buffer -> all places that hold it, each module object counted once.

    Args:
        model: The twin.
        names: Names of its parameters by identity: where a module was taken apart they are not those of the twin.

    ``functional_call`` restores a module that is registered under two names wrongly if it is given both, and
    forgets tied modules if it is given one name for two of them.
    """
    named = {id(b): name for name, b in model.named_buffers()} | dict(names)
    found: dict[str, list[str]] = {name: [] for name in named.values()}
    for path, module in model.named_modules():
        for local, t in [*module._parameters.items(), *module._buffers.items()]:
            if t is not None:
                found[named[id(t)]].append(f"{path}.{local}" if path else local)
    return found
