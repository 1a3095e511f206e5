"""Recurrent modules of a twin give way to loops over their steps, one by one, wherever that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from gradprobe.core.hooks import Call, copied, intercept, tensors
from gradprobe.problems.recurrent import Unrolled, UnrolledCell

Run = Callable[[nn.Module], torch.Tensor]
"""Losses of the batch with a module in the twin's place."""

FORWARDS = {
    **dict.fromkeys((nn.LSTM.forward, nn.GRU.forward, nn.RNN.forward), Unrolled),
    **dict.fromkeys((nn.LSTMCell.forward, nn.GRUCell.forward, nn.RNNCell.forward), UnrolledCell),
}
"""What takes the place of a module that runs torch's own forward."""

ULPS = 2000
"""How many units of the last place outputs may differ by, as those of two fused kernels may over some 100 steps."""


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is or holds one that can be taken apart into steps."""
    return any(_kind(m) for m in module.modules())


def unrolled(twin: nn.Module, run: Run) -> tuple[nn.Module, dict[str, str]]:
    """Replace the recurrent modules of a twin by loops over their steps.

    Each is replaced alone and then compared inside the model's own forward: every output of every call, and the
    losses. Where they are not equal, or the model asks the module for something that its steps do not have, the
    fused module is put back.

    Args:
        twin: The twin; changed in place.
        run: Runs it. It must give the losses of the twin as it is now.

    Returns:
        The twin, which is another if the model itself is recurrent; path of each module that stays fused -> why.
    """
    stays: dict[str, str] = {}
    for path, module in list(twin.named_modules()):
        kind = _kind(module)
        if kind is None:
            continue
        fused = _Seen(twin, path, run)
        if not fused.outputs:
            continue  # it never runs
        why = _refusal(module)
        if not why:
            steps = kind(module)
            twin = _replaced(twin, module, steps)
            why = _difference(fused, twin, path, run)
            twin = _replaced(twin, steps, module) if why else twin
        if why:
            stays[path] = why
    return twin, stays


def _kind(module: nn.Module) -> type[Unrolled] | type[UnrolledCell] | None:
    known = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    return FORWARDS.get(type(module).forward) if known else None


class _Seen:
    """Outputs of all calls of a module in one forward, and the losses."""

    def __init__(self, twin: nn.Module, path: str, run: Run) -> None:
        self.outputs: list[list[torch.Tensor]] = []

        def note(call: Call, output: Any) -> Any:
            self.outputs.append(copied(tensors(output)))
            return output

        with intercept(twin, {path: path}, note) as calls, _plain_kernels(twin):
            calls.restart()
            self.losses = run(twin)


def _plain_kernels(twin: nn.Module) -> AbstractContextManager[Any]:
    """On a GPU, no cuDNN: its recurrent kernels round to TF32 by default, and steps cannot agree with that."""
    on_gpu = any(p.is_cuda for p in twin.parameters())
    return torch.backends.cudnn.flags(enabled=False) if on_gpu else nullcontext()


def _refusal(module: nn.Module) -> str:
    """Why a module cannot be taken apart; empty if it can."""
    wanted = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    if isinstance(module, nn.RNNBase):
        wanted = module._flat_weights_names
        if module.training and module.dropout > 0 and module.num_layers > 1:
            return "it drops units between its layers"
    if set(module._parameters) != set(wanted) or module._buffers or module._modules:
        return "its weights are made from others, or it holds more than its weights"
    if "forward" in vars(module):
        return "its forward was replaced"
    if module._backward_hooks or module._backward_pre_hooks:
        return "it has backward hooks"
    return ""


def _replaced(root: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module in the place of another wherever a module holds it."""
    for module in root.modules():
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new
    return new if root is old else root


def _difference(fused: _Seen, twin: nn.Module, path: str, run: Run) -> str:
    """How a twin with a module taken apart differs from what was seen before; empty if it does not."""
    try:
        steps = _Seen(twin, path, run)
    except Exception as error:  # whatever it is: the module stays as it was
        return f"without it the model fails with {type(error).__name__}: {' '.join(str(error).split())}"
    if len(steps.outputs) != len(fused.outputs):
        return "the model also holds it where it cannot be replaced"
    for mine, theirs in zip(steps.outputs, fused.outputs, strict=True):
        if len(mine) != len(theirs) or not all(map(_close, mine, theirs)):
            return "its steps give other outputs"
    return "" if _close(steps.losses, fused.losses) else "the model's losses change without it"


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    tolerance = ULPS * torch.finfo(one.dtype).eps
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
