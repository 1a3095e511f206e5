"""Linear layers of many copies: one product of matrices where all copies see the same rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class FeaturesFirst(TorchFunctionMode):
    """Under ``vmap`` on a CPU, ``F.linear`` of rows with weights of each copy is ``(W x^T + b)^T``.

    Torch multiplies the rows by the weights of one copy after another. The other way round, the weights of all
    copies are one tall matrix where the rows are not a copy's own, and the features of a layer come before the samples
    in memory, where the next layer and a sum over few classes read whole vectors. The numbers are the same up to
    rounding.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and len(args) == 3 and _serves(*args):
            rows, weight, bias = args
            found = weight @ rows.t()
            return (found if bias is None else found.add_(bias[:, None])).t()
        return func(*args, **(kwargs or {}))


def _serves(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether these are rows, and weights and a bias of copies, on a CPU."""
    own = torch._C._functorch.is_batchedtensor
    if rows.ndim != 2 or weight.ndim != 2 or rows.device.type != "cpu":
        return False
    return own(weight) and (bias is None or own(bias))
