"""Any module that owns parameters: pull back through that one module by autograd."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import copied, first_tensor, map_tensors, tensors
from gradprobe.layers import register
from gradprobe.layers._calls import Apart, Copies, Tensors


@register("generic", summary="any module, by autograd through it alone; no sign of the input")
class Generic:
    """Rule for modules of any type.

    Attributes:
        encodes: Whether the rule knows the signs of the layer's Jacobian.
        absorbs: Whether parameters of its submodules belong to the layer too.
        matrices: Local names of the parameters that multiply the inputs, where the output is linear in the inputs
            but for a bias; empty where it is not, or that is not known.
        neurons: Axis of the layer's neurons (units, channels) in its output; None where that is not known.
        keeps: Whether :meth:`kept` says what the signs of a call need; else the call is kept as it is.
    """

    encodes = False
    absorbs = False
    matrices: tuple[str, ...] = ()
    neurons: int | None = None
    keeps = False

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
        return _dense(own, values, found)

    def pull_back_copies(self, calls: Copies) -> dict[str, torch.Tensor]:
        """The sum of :meth:`pull_back` over calls that are alike, by one vectorised call.

        It serves rules that leave :meth:`pull_back` as it is.

        Args:
            calls: The calls, and the cotangents of their outputs.

        Returns:
            Local parameter name -> gradient. What torch cannot vectorise raises any error.
        """
        module, values = calls.module, calls.values
        inside = {name: v.clone() for name, v in values.items()}
        leaves = [inside[name].requires_grad_() for name in calls.own]
        like = calls.inputs[0]
        stacked = [torch.stack(each) for each in zip(*map(tensors, calls.inputs), strict=True)]

        def one(*mine: torch.Tensor) -> torch.Tensor:
            left = iter(mine)
            args, kwargs = map_tensors(lambda _: next(left).clone(), like)
            if calls.encode:
                args, kwargs = self.encoded(module, args, kwargs)
            found = first_tensor(_called(module, inside, args, kwargs))
            assert found is not None
            return found

        with torch.enable_grad():
            outputs = torch.func.vmap(one)(*stacked)
            cotangents = calls.cotangents.to(outputs.dtype)
            found = torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)
        return _dense(calls.own, values, found)

    def pull_back_apart(self, call: Apart) -> dict[str, torch.Tensor]:
        """``J_b^T cotangent`` of each sample b on its own, for several cotangents; all samples at once.

        Args:
            call: The call, and the cotangents of its output.

        Returns:
            Local parameter name -> ``[B, n, *param]``. What torch cannot vectorise raises any error.
        """
        module, own, values, axis = call.module, call.own, call.values, call.axis
        args, kwargs = call.args, call.kwargs
        if call.encode:
            args, kwargs = self.encoded(module, args, kwargs)
        given = tensors((args, kwargs))
        leaves = {name: values[name] for name in own}

        def one(cotangent: torch.Tensor, *mine: torch.Tensor) -> dict[str, torch.Tensor]:
            left = iter(t if a is None else t.unsqueeze(a) for t, a in zip(mine, call.axes, strict=True))
            given_args, given_kwargs = map_tensors(lambda _: next(left).clone(), (args, kwargs))

            def output(own_values: Tensors) -> torch.Tensor:
                found = first_tensor(_called(module, {**values, **own_values}, given_args, given_kwargs))
                assert found is not None
                return found

            made, back = torch.func.vjp(output, leaves)[:2]
            alone = cotangent.unsqueeze(1 + axis).to(made.dtype)
            each = [back(c)[0] for c in alone]
            return {name: torch.stack([found[name] for found in each]) for name in own}

        return torch.func.vmap(one, in_dims=(1 + axis, *call.axes))(call.cotangents, *given)

    def error_back(
        self,
        module: nn.Module,
        matrices: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
    ) -> list[torch.Tensor]:
        """What a cotangent of the (first) output is for the call's inputs if other :attr:`matrices` multiply them.

        Args:
            module: The module; its hooks are left out.
            matrices: Local name of each matrix -> what takes its place.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            cotangent: Shape of the output.

        Returns:
            One for each floating tensor among the arguments.
        """
        leaves: list[torch.Tensor] = []

        def leaf(t: torch.Tensor) -> torch.Tensor:
            if t.is_floating_point():
                t = t.detach().requires_grad_()
                leaves.append(t)
            return t

        with torch.enable_grad():
            args, kwargs = map_tensors(leaf, (args, dict(kwargs)))
            inside = {name: p.detach() for name, p in module.named_parameters()} | dict(matrices)
            placed = {f"module.{name}": value for name, value in inside.items()}
            output = first_tensor(
                functional_call(_Unhooked(module), placed, args, dict(kwargs), tie_weights=False)
            )
            assert output is not None
            found = torch.autograd.grad(output, leaves, cotangent, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)]

    def kept(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """What of a call :meth:`pull_back_kept` needs: its arguments, or signs in their place (see :attr:`keeps`).

        It is asked while the module runs with hooks on it, and must not call it. Signs are kept in a bit each.
        """
        return self.encoded(module, args, kwargs)

    def pull_back_kept(
        self,
        module: nn.Module,
        own: Sequence[str],
        values: Tensors,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        cotangent: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """:meth:`pull_back` with ``encode``, of what :meth:`kept` gave: the same numbers, bit for bit."""
        return self.pull_back(module, own, values, args, kwargs, cotangent)

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments under which the layer's Jacobian is the sign of what it was."""
        raise UsageError(
            f"the sign of the input is not defined for a {type(module).__name__}; use encode=sign-noise there, "
            "leave the layer out with layers=, or register a layer rule."
        )


def _dense(
    own: Sequence[str], values: Tensors, found: Sequence[torch.Tensor | None]
) -> dict[str, torch.Tensor]:
    """Gradients by name, zeros where there is none."""
    return {
        name: torch.zeros_like(values[name]) if g is None else g.to_dense() if g.is_sparse else g
        for name, g in zip(own, found, strict=True)
    }


def _called(module: nn.Module, inside: Tensors, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return functional_call(module, dict(inside), args, dict(kwargs), tie_weights=False)


class _Unhooked(nn.Module):
    """A module's forward alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What it puts out, before hooks."""
        return self.module.forward(*args, **kwargs)


class SignOfInput(Generic):
    """Layers whose Jacobian entries are input entries: sign(J) is J at sign(input)."""

    encodes = True
    keeps = True

    def encoded(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same call with the sign of its input."""
        if args:
            return (torch.sign(args[0]), *args[1:]), kwargs
        name = next(iter(inspect.signature(module.forward).parameters))
        return args, {**kwargs, name: torch.sign(kwargs[name])}
