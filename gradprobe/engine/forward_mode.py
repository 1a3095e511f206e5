"""Derivatives along noise, at no noise: each copy's noise is the tangent of a zero that is added."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradprobe.engine.sites import Forward

Tensors = tuple[torch.Tensor, ...]


@contextmanager
def forward_mode() -> Iterator[None]:
    """Kernels that have a forward-mode rule, and no warnings of torch about its own use of deprecated functions.

    Fused attention has no such rule, so it is computed by plain products of matrices.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def derivative(function: Callable[..., tuple[torch.Tensor, Any]], noise: Tensors) -> torch.Tensor:
    """Derivative at zero of the first thing that a function of noise returns, along the noise.

    Under ``vmap`` the values stay as they are, and only the tangents are batched.

    Args:
        function: Of as many tensors as the noise has.
        noise: The direction.
    """
    # of the noise's strides, else its tangents are copied; made anew, else vmap would batch them
    zeros = tuple(
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).zero_() for x in noise
    )
    return torch.func.jvp(lambda *eps: function(*eps)[0], zeros, noise)[1]


@contextmanager
def with_tangents(forward: Forward) -> Iterator[Forward]:
    """The forward with dual numbers for noise: zeros whose tangents are the noise."""
    with forward_mode(), forward_ad.dual_level():
        duals = {
            site: forward_ad.make_dual(torch.zeros_like(eps), eps) for site, eps in forward.noise.items()
        }
        yield replace(forward, noise=duals)


def tangents(losses: torch.Tensor) -> torch.Tensor:
    """Derivatives in dual losses; 0 where they do not depend on the noise."""
    found = forward_ad.unpack_dual(losses).tangent
    return torch.zeros_like(losses) if found is None else found.clone()
