"""How often is each layer called, and if never, why?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok, warning
from gradprobe.core.layer import Layer
from gradprobe.problems.problem import Problem


@register("unused", summary="every layer runs", per="problem", order=5, quick=True, noted=True)
def check_unused(case: Case) -> Verdict:
    """Name layers that are neither called nor have a gradient: nothing of them is probed."""
    if not case.unused:
        return ok("every layer with parameters runs.", {"layers": []})
    names = list(case.unused)
    return warning(
        f"{named(names)} never run{'s' * (len(names) == 1)} on this batch and moves nothing, so nothing is said of "
        "it; if it should run, look for a branch that this batch or mode='eval' does not take.",
        {"layers": names},
    )


@register(
    "calls",
    summary="how often the layer is called in a forward",
    per="layer",
    order=10,
    quick=True,
    noted=True,
)
def check(case: Case, layer: Layer) -> Verdict:
    """Count calls; where activation noise has no place, say why."""
    value: dict[str, Any] = {"cell": str(layer.calls), "calls": layer.calls, "credit": layer.credit}
    if layer.activations:
        note = f"; {layer.note}" if layer.note else ""
        return ok(f"{layer.name!r} is called {_times(layer.calls)} in a forward{note}.", value)
    why = f"{layer.name!r}: {layer.note}"
    if layer.calls == 0:
        why = f"{layer.name!r} is never called, yet its parameters act: {cause(case.problem, layer)}"
    if "activations" not in case.asked.get(layer.name, ()):
        return ok(f"{why}; noise goes on its weights.", value)
    return warning(
        f"{why}; noise on activations (lr, alr) has no place there and the layer is left out of them: use weight "
        "noise (es), or change the model so that all it does is the output of a call.",
        value,
    )


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def cause(problem: Problem, layer: Layer) -> str:
    """Why a layer whose parameters act is never called, as text."""
    paths = list(layer.modules)
    for path in paths:
        outer = path
        while outer:
            outer = outer.rpartition(".")[0]
            if hasattr(problem.twin.get_submodule(outer), "_orig_mod"):
                return (
                    f"it is inside {outer!r}, which torch.compile made deaf to hooks (give the plain module)"
                )
    if _forwards(problem, paths):
        return "its forward is called directly (module.forward(x)), which passes hooks by"
    path = paths[0].rpartition(".")[0]
    kind = type(problem.twin.get_submodule(path)).__name__
    return f"the {kind} around it uses them in a function, such as F.linear"


def _forwards(problem: Problem, paths: Sequence[str]) -> bool:
    """Whether the ``forward`` of one of these modules runs in a forward of the problem."""
    ran = False
    replaced = []
    try:
        for path in paths:
            module = problem.twin.get_submodule(path)
            true = module.forward

            def watched(*args: Any, true: Any = true, **kwargs: Any) -> Any:
                nonlocal ran
                ran = True
                return true(*args, **kwargs)

            replaced.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = watched
        with torch.no_grad():
            problem.evaluate()
    finally:
        for module, own in replaced:
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own
    return ran
