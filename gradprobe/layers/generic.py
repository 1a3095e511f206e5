"""Any module that owns parameters: pull back through the module by ``torch.func.vjp``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vjp

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import copied, first_tensor
from gradprobe.layers import register

Tensors = Mapping[str, torch.Tensor]


@register("generic", summary="any module, through torch.func.vjp; no sign of the input")
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
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
        encode: bool = False,
    ) -> dict[str, torch.Tensor]:
        """``J^T cotangent`` for the layer's parameters, J the Jacobian of its (first) output.

        Args:
            module: The module.
            values: Its parameters by local name.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            cotangent: Shape of the output.
            encode: Replace J by sign(J), entry by entry, before any sum over positions.

        Returns:
            Local parameter name -> gradient.

        Raises:
            UsageError: ``encode`` is asked of a type whose signs are not known.
        """
        if encode:
            args, kwargs = self.encoded(module, args, kwargs)
        if not self.encodes:  # a module that we do not know may change its input in place
            args, kwargs = copied(args), copied(kwargs)

        def output(leaves: dict[str, torch.Tensor]) -> torch.Tensor:
            tensor = first_tensor(functional_call(module, leaves, args, dict(kwargs)))
            assert tensor is not None
            return tensor

        return vjp(output, dict(values))[1](cotangent)[0]

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments under which the layer's Jacobian is the sign of what it was."""
        raise UsageError(
            f"the sign of the input is not defined for a {type(module).__name__}; use encode=sign-noise there, "
            "leave the layer out with layers=, or register a layer rule."
        )


class SignOfInput(Generic):
    """Layers whose Jacobian entries are input entries: sign(J) is J at sign(input)."""

    encodes = True

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same call with the sign of its input."""
        if args:
            return (torch.sign(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "input": torch.sign(kwargs["input"])}
