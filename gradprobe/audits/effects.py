"""What a call leaves behind in the module and in torch, and putting it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradprobe.checkup.finding import named
from gradprobe.problems.state import Watch


@dataclass(frozen=True)
class Effects:
    """What one call left behind.

    Attributes:
        said: Kind -> what was changed, in words; the kinds are ``"weights"``, ``"buffers"``, ``".grad"``,
            ``"requires_grad"``, ``"mode"``, ``"hooks"``, ``"attributes"``, ``"structure"`` and ``"settings"``.
        moved: |change of the weights| / |weights|.
    """

    said: dict[str, str]
    moved: float


class Snapshot:
    """A module and torch's settings before a call.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = {n: (p, p.detach().clone()) for n, p in module.named_parameters()}
        self.buffers = {n: (b, b.detach().clone()) for n, b in module.named_buffers()}
        self.needs = {n: p.requires_grad for n, p in module.named_parameters()}
        self.grads = {n: p.grad for n, p in module.named_parameters()}
        self.values = {n: None if g is None else g.clone() for n, g in self.grads.items()}
        self.modes = {path: m.training for path, m in module.named_modules()}
        self.hooks = _hooks(module)
        self.structure = _structure(module)
        self.settings = _settings()
        self.watch = Watch(module)

    def put_back(self) -> Effects:
        """Say what is different now, and undo it where the module is still made of the same parts.

        Returns:
            What was different; with ``"structure"`` among it the module must be replaced.
        """
        said: dict[str, str] = {}
        settings = _settings()
        changed = [name for name, value in self.settings.items() if settings[name] != value]
        if changed:
            said["settings"] = ", ".join(changed)
            torch.set_default_dtype(self.settings["the default dtype"])
            torch.set_grad_enabled(self.settings["whether gradients are recorded"])
            torch.use_deterministic_algorithms(self.settings["deterministic algorithms"])
        if _structure(self.module) != self.structure:
            said["structure"] = "the module is made of other parts"
            return Effects(said, 0.0)
        moved = self._tensors(said)
        self._flags(said)
        kept = self.watch.changes()
        names = [n for n in kept.names if n.rpartition(".")[2] != "training"]
        if names:
            said["attributes"] = named(names)
        with kept.put_back():
            pass
        return Effects(said, moved)

    def _tensors(self, said: dict[str, str]) -> float:
        """Compare and restore values of parameters and buffers."""
        square = change = 0.0
        for kind, tensors in (("weights", self.parameters), ("buffers", self.buffers)):
            other = [n for n, (t, value) in tensors.items() if not _same(t, value)]
            if other:
                said[kind] = named(other)
            for name, (t, value) in tensors.items():
                if kind == "weights":
                    square += float(value.double().square().sum())
                    change += float((t.detach().double() - value.double()).square().sum())
                if name in other:
                    t.data.copy_(value)
        return (change / square) ** 0.5 if square else 0.0

    def _flags(self, said: dict[str, str]) -> None:
        """Compare and restore gradients, flags and hooks."""
        wrote = [n for n, (p, _) in self.parameters.items() if not self._same_grad(n, p)]
        if wrote:
            said[".grad"] = named(wrote)
        frozen = [n for n, (p, _) in self.parameters.items() if p.requires_grad != self.needs[n]]
        if frozen:
            said["requires_grad"] = named(frozen)
        for name, (p, _) in self.parameters.items():
            p.requires_grad_(self.needs[name])
            p.grad = None
        switched = [
            path or "(root)" for path, m in self.module.named_modules() if m.training != self.modes[path]
        ]
        if switched:
            said["mode"] = named(switched)
        for path, m in self.module.named_modules():
            m.training = self.modes[path]
        hooked = _hooks(self.module)
        if hooked != self.hooks:
            said["hooks"] = named(
                sorted({path or "(root)" for path, _ in hooked if _only(path, hooked, self.hooks)})
            )
            _restore_hooks(self.module, self.hooks)

    def _same_grad(self, name: str, p: nn.Parameter) -> bool:
        before, value = self.grads[name], self.values[name]
        if before is None or value is None:
            return p.grad is None
        return p.grad is before and _same(before, value)


def _same(t: torch.Tensor, value: torch.Tensor) -> bool:
    return t.dtype == value.dtype and bool(torch.equal(t.detach(), value))


def _hooks(module: nn.Module) -> dict[tuple[str, str], dict[Any, Any]]:
    """(Path, name of the dictionary) -> hooks."""
    return {
        (path, key): dict(value)
        for path, m in module.named_modules()
        for key, value in vars(m).items()
        if key.endswith("_hooks") and isinstance(value, dict)
    }


def _only(path: str, one: dict[tuple[str, str], Any], other: dict[tuple[str, str], Any]) -> bool:
    return any(value != other.get(key) for key, value in one.items() if key[0] == path)


def _restore_hooks(module: nn.Module, hooks: dict[tuple[str, str], dict[Any, Any]]) -> None:
    for (path, key), before in hooks.items():
        place = vars(module.get_submodule(path))[key]
        place.clear()
        place.update(before)


def _structure(module: nn.Module) -> list[tuple[str, int]]:
    """Names and identities of modules, parameters and buffers."""
    parts = [*module.named_modules(), *module.named_parameters(), *module.named_buffers()]
    return [(name, id(part)) for name, part in parts]


def _settings() -> dict[str, Any]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }
