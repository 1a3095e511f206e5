"""What an operation of torch costs, in multiply-adds: a price that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from gradprobe.core.hooks import tensors

_MOVES = {
    "clone",
    "_to_copy",
    "copy_",
    "_copy_from",
    "detach_",
    "resize_",
    "set_",
    "_unsafe_view",
    "_local_scalar_dense",
}
"""Operations that only move numbers."""

_LOOKUPS = {"embedding", "index", "index_select", "gather", "take", "_unsafe_index", "_embedding_bag"}
"""Operations that read no more than they put out, however large their input is."""


def price(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> float:
    """Multiply-adds of one operation.

    Products of matrices, convolutions and attention: as torch's flop counter has them (two flops are one
    multiply-add). Fused recurrent layers: every weight once for each step and sample. Anything else (elementwise
    operations, normalisation, pooling, sums): one for each element of its largest input or output, for a lookup of
    its output. Views, copies and new constant tensors: nothing.

    Args:
        function: The operation, an ``OpOverload``.
        args: Its arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
    """
    name = function._schema.name.split("::")[-1]
    if name in _MOVES or makes_new(function, args, kwargs) or is_view(function):
        return 0.0
    counted = flop_registry.get(function._overloadpacket)
    if counted is not None:
        return float(counted(*args, **kwargs, out_val=result)) / 2
    if name.startswith("_scaled_dot_product"):
        return _attention(*args[:3])
    if name == "_trilinear":
        return _trilinear(*args)
    if name in ("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"):
        return _recurrent(args)
    seen = tensors(result) if name in _LOOKUPS else tensors((args, kwargs, result))
    return float(max((t.numel() for t in seen), default=0))


def makes_new(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the result does not depend on the values of any tensor: it is constant, random or empty."""
    name = function._schema.name.split("::")[-1]
    return name.endswith("_like") or name.startswith("new_") or not tensors((args, kwargs))


def is_view(function: Any) -> bool:
    """Whether the result is another look at the memory of an argument, and nothing is written."""
    infos = [value.alias_info for value in function._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> float:
    """Products of queries and keys, and of weights and values."""
    return float(query.numel() * key.shape[-2] + query.shape[:-1].numel() * key.shape[-2] * value.shape[-1])


def _trilinear(
    i1: torch.Tensor,
    i2: torch.Tensor,
    i3: torch.Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    *_: Any,
) -> float:
    """The sum over products of three tensors (of a bilinear layer): one for each entry of all their axes together."""
    shapes = []
    for t, new in ((i1, expand1), (i2, expand2), (i3, expand3)):
        shape = list(t.shape)
        for axis in sorted(new):
            shape.insert(axis, 1)
        shapes.append(shape)
    return float(torch.broadcast_shapes(*shapes).numel())


def _recurrent(args: tuple[Any, ...]) -> float:
    """Matrices of a fused recurrent layer, at every step of every sample."""
    inputs = tensors(args[:1])[0]
    rows = inputs.numel() // inputs.shape[-1]
    return float(rows * sum(w.numel() for w in tensors(args[1:5]) if w.ndim > 1 and w is not inputs))
