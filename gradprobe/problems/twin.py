"""The twin that is run in the user's module's place: it shares values and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError, described


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


def make_twin(module: nn.Module, mode: str) -> nn.Module:
    """A copy of a module that shares its parameters and buffers.

    Args:
        module: The user's module; not changed.
        mode: ``"eval"`` or ``"as-is"``.

    Raises:
        UsageError: It cannot be copied, has no values yet, or has half precision.
    """
    shared = shared_tensors(module)
    if any(nn.parameter.is_lazy(t) for t in shared):
        raise UsageError("the model has uninitialised (lazy) parameters; run it once on a batch first.")
    half = next((n for n, p in module.named_parameters() if p.dtype.itemsize < 4), None)
    if half is not None:
        raise UsageError(
            f"parameter {half!r} has half precision, which rounds small noise away; use model.float()."
        )
    try:
        twin = copy.deepcopy(module, {id(t): t for t in shared})
    except Exception as error:
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({error}); gradprobe runs a copy so that yours stays "
            "untouched. Give the model a __deepcopy__, or build it without what cannot be copied."
        ) from error
    return twin.eval() if mode == "eval" else twin


def shared_tensors(module: nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


class Swapped(nn.Module):
    """Runs a function while ``functional_call`` has swapped values in: a backward pass inside sees them too."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, function: Callable[[], Any]) -> Any:
        """Run it."""
        return function()


def places(model: nn.Module) -> dict[str, list[str]]:
    """Name of a parameter or buffer -> all places that hold it, each module object counted once.

    ``functional_call`` restores a module that is registered under two names wrongly if it is given both, and
    forgets tied modules if it is given one name for two of them.
    """
    named = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    found: dict[str, list[str]] = {name: [] for name in named.values()}
    for path, module in model.named_modules():
        for local, t in [*module._parameters.items(), *module._buffers.items()]:
            if t is not None:
                found[named[id(t)]].append(f"{path}.{local}" if path else local)
    return found
