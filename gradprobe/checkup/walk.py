"""One forward that is watched, with backprop to the output of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.problems.problem import Problem


@dataclass
class Seen:
    """One call of a layer.

    Attributes:
        call: The call, with copies of its arguments.
        cotangent: Backprop's gradient of the loss for the output; None where nothing comes back.
        autocast: Whether it ran under autocast.
        overwritten: Whether something after it wrote into its output.
        dtype: Type of its output.
    """

    call: Call
    cotangent: torch.Tensor | None
    autocast: bool
    overwritten: bool
    dtype: torch.dtype


@dataclass
class Walk:
    """What was seen: layer -> its calls."""

    calls: dict[str, list[Seen]] = field(default_factory=dict)


def walk(problem: Problem, layers: Sequence[Layer]) -> Walk:
    """Run a problem forward and back once and note what each call of a layer saw.

    Args:
        problem: The problem.
        layers: Its layers; those whose output takes noise are watched.
    """
    watched = [x for x in layers if x.activations]
    if not watched:
        return Walk()
    most = {x.name: x.calls for x in watched}
    added: list[torch.Tensor] = []
    notes: list[tuple[Call, torch.Tensor, int, bool]] = []

    def edit(call: Call, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or call.number >= most[call.layer]:  # run again during backward
            return output
        nothing = torch.zeros_like(tensor, requires_grad=True)
        new = tensor + nothing
        added.append(nothing)
        notes.append((call, new, new._version, torch.is_autocast_enabled(new.device.type)))
        return with_first_tensor(output, new)

    def first(call: Call) -> bool:
        return call.number < most[call.layer]

    with intercept(problem.twin, paths(watched), edit, first) as calls:
        calls.restart()
        found = problem.gradient({}, added)
    seen = Walk({x.name: [] for x in watched})
    for (call, new, version, autocast), cotangent in zip(notes, found, strict=True):
        overwritten = new._version != version
        seen.calls[call.layer].append(Seen(call, cotangent, autocast, overwritten, new.dtype))
    return seen
