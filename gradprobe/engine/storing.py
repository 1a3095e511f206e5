"""How what read-outs need of a draw is kept between the forward and the read-out: as numbers, or as their signs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradprobe.core.hooks import map_tensors
from gradprobe.engine.signs import Signs, signs_of

Inputs = tuple[str, tuple[Any, ...], Mapping[str, Any]]
"""What a call of a layer saw: module path, positional and keyword arguments."""

Noise = torch.Tensor | Signs
"""Unit noise ``[n, *shape]``, or its signs."""


@dataclass(frozen=True)
class Storing:
    """How intermediates are kept.

    Attributes:
        storage: ``"float32"`` (as they are), ``"int8"`` or ``"bits"``.
        noise: Whether the read-outs need no more of the noise than its signs.
        encode: What signs are kept of a call's inputs; it returns None where the call is kept as it is.
    """

    storage: str = "float32"
    noise: bool = False
    encode: Callable[[Inputs], Inputs | None] | None = None

    def of_noise(self, noise: Noise) -> Noise:
        """Noise as it is kept."""
        if not self.noise or self.storage == "float32" or isinstance(noise, Signs):
            return noise
        return signs_of(noise, self.storage)

    def of_inputs(self, inputs: Inputs) -> Inputs | None:
        """Inputs as they are kept; None where that is as they are."""
        if self.storage == "float32" or self.encode is None:
            return None
        found = self.encode(inputs)
        if found is None:
            return None
        path, args, kwargs = found
        return path, map_tensors(self._packed, args), map_tensors(self._packed, kwargs)

    def _packed(self, t: torch.Tensor) -> torch.Tensor | Signs:
        """A tensor of signs, packed; any other as it is."""
        return signs_of(t, self.storage) if bool((t == torch.sign(t)).all()) else t


AS_IT_IS = Storing()
