"""Which layers a model has, in which order they run, and what can be asked of each."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import nn

from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.layers import rule_for
from gradprobe.layers.samples import credited

ROOT = "(root)"


@dataclass(frozen=True)
class Found:
    """Layers in execution order, and what was left out.

    Attributes:
        layers: The layers that run.
        unused: Name of each layer that never runs.
    """

    layers: tuple[Layer, ...]
    unused: tuple[str, ...]

    def select(self, patterns: str | Sequence[str] | None) -> list[Layer]:
        """Layers by name, glob over names, class name, or name of the module that they are in.

        Args:
            patterns: One or several; None for all.

        Raises:
            UsageError: A pattern matches no layer, or only one that never runs.
        """
        if patterns is None:
            return list(self.layers)
        chosen: set[str] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            hit = {x.name for x in self.layers if _matches(pattern, x)}
            hit = hit or {x.name for x in self.layers if any(p.startswith(f"{pattern}.") for p in x.modules)}
            if not hit and pattern in self.unused:
                raise UsageError(f"layer {pattern!r} never runs on this batch, so there is nothing to probe.")
            if not hit:
                kinds = sorted({x.kind for x in self.layers})
                raise unknown("layer", pattern, [*(x.name for x in self.layers), *kinds])
            chosen |= hit
        return [x for x in self.layers if x.name in chosen]


def _matches(pattern: str, layer: Layer) -> bool:
    names = {layer.name, *layer.name.split(" = "), layer.kind}
    return any(pattern == name or fnmatch.fnmatchcase(name, pattern) for name in names)


def find_layers(problem: Runnable) -> Found:
    """Find the layers of a problem's model.

    A layer is a module that owns parameters directly; modules that share a parameter are merged. Each is then
    looked at in a forward or two: does it run, how often, is its output a floating tensor through which *all*
    of its influence on the loss passes (the loss has no gradient with respect to its parameters once its
    outputs are detached), and does noise in some samples' rows move only those samples' losses?

    A layer or direction of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` is a layer whose calls are its steps: each takes
    noise on all gate pre-activations. Where the steps stay hidden the layer's note says why.

    Args:
        problem: The problem.

    Returns:
        Layers in execution order, and the names of those that never run.
    """
    groups = _owners(problem.twin, problem.names)
    trace = _trace(problem, groups)
    gradients = _gradients(problem)
    layers, unused = [], []
    for name, modules in groups.items():
        layer = _describe(problem, name, modules, trace)
        if layer.calls == 0 and not any(gradients.get(p) is not None for p in layer.parameters):
            unused.append(name)
            continue
        layers.append(_examine(problem, layer))
    layers = [_with_reason(problem, layer) for layer in credited(problem, layers)]
    layers.sort(key=lambda layer: trace.started(layer))
    matrices = [any(len(shape) > 1 for shape in x.shapes) for x in layers]
    inside = {x.name: tuple(y.name for y in layers if y is not x and _within(x, y)) for x in layers}
    found = [
        replace(x, contains=inside[x.name], matrices_before=sum(matrices[:i])) for i, x in enumerate(layers)
    ]
    return Found(tuple(found), tuple(unused))


def _owners(model: nn.Module, canonical: Mapping[int, str]) -> dict[str, dict[str, dict[str, str]]]:
    """Layer name -> {module path: {local name: name in the model}}, in registration order.

    Args:
        model: The twin.
        canonical: Names of its parameters by identity.
    """
    owned: dict[str, dict[str, str]] = {}
    for path, module in model.named_modules():
        for local, p in module._parameters.items():
            if p is not None:
                owner = _owner(model, path)
                full = f"{path}.{local}" if path else local
                relative = full[len(owner) + 1 :] if owner else full
                owned.setdefault(owner, {})[relative] = canonical[id(p)]
    merged: list[list[str]] = []
    for path, names in owned.items():
        same = [g for g in merged if any(set(owned[q].values()) & set(names.values()) for q in g)]
        for group in same:
            merged.remove(group)
        merged.append([q for group in same for q in group] + [path])
    named = {" = ".join(path or ROOT for path in group): group for group in merged}
    return {name: {path: owned[path] for path in group} for name, group in named.items()}


def _owner(model: nn.Module, path: str) -> str:
    """The module a parameter is counted with: parametrised tensors and absorbed submodules go to the parent."""
    path = path.split(".parametrizations.")[0]
    path = "" if path.startswith("parametrizations.") else path
    parts = path.split(".")
    for end in range(len(parts)):
        above = ".".join(parts[:end])
        if above != path and rule_for(model.get_submodule(above)).absorbs:
            return above
    return path


@dataclass
class _Trace:
    outputs: dict[str, list[Any]]
    first: dict[str, int]

    def started(self, layer: Layer) -> tuple[int, int]:
        """When the layer first ran; for one without a call, when the module around it did."""
        if layer.calls:
            return min(self.first[path] for path in layer.modules if path in self.first), 0
        path = next(iter(layer.modules))
        while path and path not in self.first:
            path = path.rpartition(".")[0]
        return self.first.get(path, 0), 1


def _trace(problem: Runnable, groups: Mapping[str, Mapping[str, Any]]) -> _Trace:
    of = {path: name for name, modules in groups.items() for path in modules}
    every = {path: of.get(path, f"module {path}") for path, _ in problem.twin.named_modules()}
    trace = _Trace({name: [] for name in groups}, {})
    clock = count()

    def capture(call: Call) -> bool:
        trace.first.setdefault(call.path, next(clock))
        return False

    def note(call: Call, output: Any) -> Any:
        if call.layer in trace.outputs:
            t = first_tensor(output)
            trace.outputs[call.layer].append((call.number, None if t is None else tuple(t.shape)))
        return output

    with torch.no_grad(), intercept(problem.twin, every, note, capture) as calls:
        calls.restart()
        problem.evaluate()
    return trace


def _gradients(problem: Runnable, names: Sequence[str] | None = None) -> dict[str, torch.Tensor | None]:
    """Gradient of the clean loss for the named parameters (all by default); None where there is no path."""
    values = problem.parameters
    leaves = {n: values[n].clone().requires_grad_() for n in (names if names is not None else values)}
    return dict(zip(leaves, problem.gradient(leaves, list(leaves.values())), strict=True))


def _describe(problem: Runnable, name: str, modules: dict[str, dict[str, str]], trace: _Trace) -> Layer:
    parameters = list(dict.fromkeys(p for local in modules.values() for p in local.values()))
    values = problem.parameters
    seen = [shape for _, shape in sorted(trace.outputs[name], key=lambda item: item[0])]
    bad = None in seen
    return Layer(
        name=name,
        kind=type(problem.twin.get_submodule(next(iter(modules)))).__name__,
        parameters=tuple(parameters),
        shapes=tuple(tuple(values[p].shape) for p in parameters),
        calls=len(seen),
        activations=bool(seen) and not bad,
        note="" if seen and not bad else _NO_CALL if not seen else _NO_FLOAT,
        modules=modules,
        outputs=() if bad else tuple(seen),
    )


_NO_CALL = "its parameters are used without calling the module: weight noise only"
_NO_FLOAT = "its output holds no floating tensor: weight noise only"
_BYPASS = "its parameters also act past its (first) output: weight noise only"
_FUSED = "its steps are hidden in one fused operation"


def _examine(problem: Runnable, layer: Layer) -> Layer:
    """Find out whether activation noise serves a layer."""
    if not layer.activations:
        return layer

    def cut(call: Call, output: Any) -> Any:
        tensor = first_tensor(output)
        return output if tensor is None else with_first_tensor(output, tensor.detach())

    with intercept(problem.twin, paths([layer]), cut) as calls:
        calls.restart()
        left = _gradients(problem, layer.parameters)
    if any(g is not None and bool((g != 0).any()) for g in left.values()):
        return replace(layer, activations=False, note=_BYPASS)
    return layer


def _with_reason(problem: Runnable, layer: Layer) -> Layer:
    """The layer with a note on why its steps take no noise of their own, if it has steps."""
    why = next((problem.fused[path] for path in layer.modules if path in problem.fused), None)
    if why is None:
        return layer
    where = "noise on its outputs alone" if layer.activations else "weight noise only"
    more = f"; {layer.note}" if layer.activations and layer.note else ""
    return replace(layer, note=f"{_FUSED} ({why}): {where}{more}")


def _within(outer: Layer, inner: Layer) -> bool:
    """Whether a module of one layer lies inside a module of the other."""
    return any(p != q and (q == "" or p.startswith(q + ".")) for q in outer.modules for p in inner.modules)
