"""Any module that owns parameters: pull back through that one module by autograd."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import copied, first_tensor
from gradprobe.layers import register

Tensors = Mapping[str, torch.Tensor]


@register("generic", summary="any module, by autograd through it alone; no sign of the input")
class Generic:
    """Rule for modules of any type.

    Attributes:
        encodes: Whether the rule knows the signs of the layer's Jacobian.
        absorbs: Whether parameters of its submodules belong to the layer too.
    """

    encodes = False
    absorbs = False

    def pull_back(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
        encode: bool = False,
    ) -> dict[str, torch.Tensor]:
        """``J^T cotangent`` for the layer's parameters, J the Jacobian of its (first) output.

        Args:
            module: The module.
            own: Local names of the layer's parameters.
            values: Parameters and buffers of everything inside the module by local name; left as they are.
            args: Positional arguments of the call; left as they are.
            kwargs: Keyword arguments of the call; left as they are.
            cotangent: Shape of the output.
            encode: Replace J by sign(J), entry by entry, before any sum over positions.

        Returns:
            Local parameter name -> gradient.

        Raises:
            UsageError: ``encode`` is asked of a type whose signs are not known.
        """
        if encode:
            args, kwargs = self.encoded(module, args, kwargs)
        inside = {name: v.clone() for name, v in values.items()}
        leaves = [inside[name].requires_grad_() for name in own]
        with torch.enable_grad():
            output = first_tensor(_called(module, inside, copied(args), copied(kwargs)))
            assert output is not None
            found = torch.autograd.grad(output, leaves, cotangent.to(output.dtype), allow_unused=True)
        return {
            name: torch.zeros_like(values[name]) if g is None else g.to_dense() if g.is_sparse else g
            for name, g in zip(own, found, strict=True)
        }

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments under which the layer's Jacobian is the sign of what it was."""
        raise UsageError(
            f"the sign of the input is not defined for a {type(module).__name__}; use encode=sign-noise there, "
            "leave the layer out with layers=, or register a layer rule."
        )


def _called(module: nn.Module, inside: Tensors, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return functional_call(module, dict(inside), args, dict(kwargs), tie_weights=False)


class SignOfInput(Generic):
    """Layers whose Jacobian entries are input entries: sign(J) is J at sign(input)."""

    encodes = True

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same call with the sign of its input."""
        if args:
            return (torch.sign(args[0]), *args[1:]), kwargs
        name = next(iter(inspect.signature(module.forward).parameters))
        return args, {**kwargs, name: torch.sign(kwargs[name])}
