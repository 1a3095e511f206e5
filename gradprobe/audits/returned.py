"""What an audited function gave back, as one direction for each parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError, described


@dataclass(frozen=True)
class Returned:
    """Directions, and what is wrong with their names and shapes.

    Attributes:
        directions: Parameter name -> direction ``[*param]``, detached; only those of the right shape.
        extra: Names that are no parameter's.
        misshapen: Parameter name -> the shape that was given in place of the parameter's.
        form: ``"names"``, ``"list"``, ``"vector"`` or ``".grad"``.
    """

    directions: dict[str, torch.Tensor]
    extra: tuple[str, ...]
    misshapen: dict[str, tuple[int, ...]]
    form: str


def collected(value: Any, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Returned:
    """Directions by parameter from whatever a function may return.

    Args:
        value: {name: tensor} (also with ``module.`` before the names); tensors in the order of the parameters (of
            all, or of those that require a gradient); one vector of all of them; or None: what is in ``.grad``.
        module: The module that the function was given, as it left it.
        parameters: Its parameters, as they were before the call.

    Raises:
        UsageError: It is none of these.
    """
    if value is None:
        now = dict(module.named_parameters())
        grads = {
            n: p.grad if p.grad is not None or n not in now else now[n].grad for n, p in parameters.items()
        }
        return _checked(grads, parameters, ".grad")
    if isinstance(value, Mapping):
        return _checked(_named(value, module, parameters), parameters, "names")
    if isinstance(value, (torch.Tensor, str)) or not isinstance(value, Iterable):
        return _checked(_split(value, parameters), parameters, "vector")
    given = list(value)
    for names in (list(parameters), [n for n, p in parameters.items() if p.requires_grad]):
        if len(names) == len(given):
            return _checked(dict(zip(names, given, strict=True)), parameters, "list")
    raise UsageError(
        f"the function returned {len(given)} directions and the module has {len(parameters)} parameters; return "
        "{name: tensor} with the names of named_parameters()."
    )


def _named(
    value: Mapping[Any, Any], module: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Any]:
    """Under the names of ``named_parameters()``; a shared parameter may go by any of its names."""
    first = {id(p): name for name, p in parameters.items()}
    alias = {name: first[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}

    def name_of(key: str) -> str:
        short = key.removeprefix("module.")
        return alias.get(key) or alias.get(short) or key

    return {name_of(str(key)): direction for key, direction in value.items()}


def _split(value: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    sizes = [p.numel() for p in parameters.values()]
    if not isinstance(value, torch.Tensor) or value.numel() != sum(sizes):
        raise UsageError(
            f"the function returned {described(value)}; it must return {{name: tensor}}, a list in the order of "
            "the parameters, or None and leave the direction in .grad."
        )
    parts = value.detach().reshape(-1).split(sizes)
    return {name: part.view_as(p) for part, (name, p) in zip(parts, parameters.items(), strict=True)}


def _checked(given: Mapping[str, Any], parameters: Mapping[str, nn.Parameter], form: str) -> Returned:
    found, misshapen = {}, {}
    for name, p in parameters.items():
        if given.get(name) is None:
            continue
        direction = _tensor(name, given[name])
        direction = direction.detach().to_dense() if direction.is_sparse else direction.detach()
        if direction.shape == p.shape:
            found[name] = direction.to(p.device, copy=True)
        else:
            misshapen[name] = tuple(direction.shape)
    return Returned(found, tuple(name for name in given if name not in parameters), misshapen, form)


def _tensor(name: str, value: Any) -> torch.Tensor:
    """A direction as a tensor.

    Raises:
        UsageError: It is none, nor an array.
    """
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"the function returned {described(value)} for {name!r}; it must return a tensor for each parameter."
        ) from None
