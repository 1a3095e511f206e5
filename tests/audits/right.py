"""Gradient code as people write it, right: what audits must pass, and what faults are planted into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

SIGMA = 0.01
PAIRS = 4


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in module.named_parameters()}


def loss_at(module: nn.Module, moved: dict[str, torch.Tensor], batch: Any, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return F.cross_entropy(functional_call(module, moved, (batch[0],)), batch[1], **options)


def gaussian(p: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(p)


def rademacher(p: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 2, p.shape).to(p) * 2 - 1


def antithetic(
    module: nn.Module, batch: Any, draw: Callable[[torch.Tensor], torch.Tensor] = gaussian, **options: Any
) -> dict[str, torch.Tensor]:
    """Evolution strategies in pairs; with Rademacher noise SPSA."""
    now = values(module)
    found = {name: torch.zeros_like(p) for name, p in now.items()}
    for _ in range(PAIRS):
        noise = {name: draw(p) for name, p in now.items()}
        up, down = (
            loss_at(module, {n: p + sign * SIGMA * noise[n] for n, p in now.items()}, batch, **options)
            for sign in (1, -1)
        )
        for name in found:
            found[name] += (up - down) / (2 * SIGMA * PAIRS) * noise[name]
    return found


def forward_difference(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Evolution strategies centred on the loss without noise."""
    now = values(module)
    clean = loss_at(module, now, batch)
    found = {name: torch.zeros_like(p) for name, p in now.items()}
    for _ in range(PAIRS):
        noise = {name: torch.randn_like(p) for name, p in now.items()}
        change = loss_at(module, {n: p + SIGMA * noise[n] for n, p in now.items()}, batch) - clean
        for name in found:
            found[name] += change / (SIGMA * PAIRS) * noise[name]
    return found


def spsa(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    return antithetic(module, batch, rademacher)


def by_vmap(
    module: nn.Module, batch: Any, sigma: float = SIGMA, pairs: int = PAIRS
) -> dict[str, torch.Tensor]:
    """The pairs at once."""
    now = values(module)
    noise = {n: torch.randn(pairs, *p.shape) for n, p in now.items()}

    def change(eps: dict[str, torch.Tensor]) -> torch.Tensor:
        up, down = (
            loss_at(module, {n: p + sign * sigma * eps[n] for n, p in now.items()}, batch) for sign in (1, -1)
        )
        return (up - down) / (2 * sigma)

    changes = vmap(change)(noise)
    return {n: torch.einsum("k,k...->...", changes, eps) / pairs for n, eps in noise.items()}


def likelihood_ratio(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Noise on the outputs of all linear layers at once; each sample is credited with its own loss."""
    inputs, noise, handles = {}, {}, []

    def disturb(name: str) -> Callable:
        def hook(layer: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            inputs[name], noise[name] = args[0], torch.randn_like(output)
            return output + SIGMA * noise[name]

        return hook

    found = {n: torch.zeros_like(p) for n, p in module.named_parameters()}
    with torch.no_grad():
        clean = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
        linear = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
        for name, layer in linear.items():
            handles.append(layer.register_forward_hook(disturb(name)))
        for _ in range(PAIRS):
            change = F.cross_entropy(module(batch[0]), batch[1], reduction="none") - clean
            for name in linear:
                score = change[:, None] * noise[name] / (SIGMA * len(change) * PAIRS)
                found[f"{name}.weight"] += score.T @ inputs[name]
                found[f"{name}.bias"] += score.sum(0)
        for handle in handles:
            handle.remove()
    return found


def backward(module: nn.Module, batch: Any) -> None:
    """Leaves the gradient in .grad, as training loops do."""
    F.cross_entropy(module(batch[0]), batch[1]).backward()


def autograd(module: nn.Module, batch: Any) -> list[torch.Tensor]:
    """Gradients in the order of the parameters."""
    return list(torch.autograd.grad(F.cross_entropy(module(batch[0]), batch[1]), list(module.parameters())))


def vector(module: nn.Module, batch: Any) -> torch.Tensor:
    """One vector of all parameters."""
    return torch.cat([g.flatten() for g in autograd(module, batch)])


def wrapped(module: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    """Under the names that DataParallel gives."""
    return {f"module.{name}": g for name, g in antithetic(module, batch).items()}


RIGHT = (
    antithetic,
    forward_difference,
    spsa,
    by_vmap,
    likelihood_ratio,
    backward,
    autograd,
    vector,
    wrapped,
)
