"""Do two forwards of the same batch give the same bits?"""

import torch

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, warning


@register("repeat", summary="two forwards without noise are equal", per="problem", order=0, quick=True)
def check(case: Case) -> Verdict:
    """Hold one more forward against the losses without noise; a difference is counted in ulp of the largest loss.

    Losses that differ by more than rounding can explain are refused when the problem is made.
    """
    with torch.no_grad():
        again = case.problem.evaluate()
    ulp = torch.finfo(again.dtype).eps * max(float(case.clean.abs().max()), torch.finfo(again.dtype).tiny)
    off = float((again.double() - case.clean).abs().max()) / ulp
    if off == 0:
        return ok("two forwards of the same batch give the same bits.", {"ulp": 0.0})
    return warning(
        f"two forwards of the same batch differ by {off:.0f} ulp (sums in no fixed order, as on several threads or a "
        "GPU): 1/sigma amplifies that, and a run cannot be repeated to the bit; use "
        "torch.use_deterministic_algorithms(True), or a larger sigma.",
        {"ulp": off},
    )
