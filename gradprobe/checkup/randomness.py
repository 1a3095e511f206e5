"""Random numbers that the model draws itself."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, warning

FUSED = ("attention", "rnn", "lstm", "gru")
"""Operations that may draw (dropout of their own), and do not in eval mode."""


@register("random", summary="the forward draws no random numbers", per="problem", order=3, quick=True)
def check(case: Case) -> Verdict:
    """See whether a forward moves torch's random state; a full look also lists operations that draw.

    A forward that draws and yet gives the same losses twice seeds itself: the model's own noise is one fixed draw.
    """
    drawing = Drawing()
    torch.default_generator.manual_seed(case.problem.samples)  # a state that no forward has left
    state = torch.get_rng_state()
    with torch.no_grad():
        case.problem.evaluate()
        state_moved = not torch.equal(state, torch.get_rng_state())
        if state_moved or not case.quick:
            with drawing:
                case.problem.evaluate()
    if not state_moved and not drawing.names:
        return ok("the forward draws no random numbers.", {"operations": []})
    names = sorted(drawing.names) or ["an operation that is not torch's"]
    return warning(
        f"the forward draws random numbers itself ({', '.join(names)}) and yet repeats, so it seeds itself: every "
        "copy meets the same draw, and results hold for that draw alone; switch that noise off, or make it an input.",
        {"operations": names, "global": state_moved},
    )


class Drawing(TorchDispatchMode):
    """Notes operations of torch that draw from a generator.

    Attributes:
        names: Their names, such as ``randn``; those of :data:`FUSED` ones are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded in func.tags and not any(word in name for word in FUSED):
            self.names.add(name)
        return func(*args, **(kwargs or {}))
