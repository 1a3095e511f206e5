"""What the mode switches off, or leaves on."""

from __future__ import annotations

from torch import nn

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok

RANDOM = ("dropout", "droppath", "drop_path", "stochasticdepth")


@register("mode", summary="what the mode switches off", per="problem", order=6)
def check(case: Case) -> Verdict:
    """Name what behaves otherwise in training: dropout that is off, BatchNorm that uses the batch's statistics."""
    modules = list(case.problem.twin.named_modules())
    off = [n for n, m in modules if random_by_name(m) and not m.training]
    norms = [n for n, m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    said = f"mode={case.problem.mode!r}"
    if off:
        said += f"; {named(off)} is switched off, so what is measured is the model without it"
    if norms:
        said += f"; {named(norms)} uses the batch's statistics, on copies of its buffers"
    return ok(said + ".", {"mode": case.problem.mode, "off": off, "batch_statistics": norms})


def random_by_name(module: nn.Module) -> bool:
    """Whether a module is dropout or stochastic depth, by the name of its class."""
    name = type(module).__name__.lower()
    return any(word in name for word in RANDOM)
