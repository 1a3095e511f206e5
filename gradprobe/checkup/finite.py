"""Are loss and gradient finite?"""

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, ok, refused


@register("finite", summary="loss and backprop gradient are finite", per="problem", order=1, quick=True)
def check(case: Case) -> Verdict:
    """Look at the losses without noise and at backprop's gradient of every layer."""
    loss = float(case.problem.total(case.clean))
    bad = [
        x.name for x in case.every if not all(bool(case.gradient[p].isfinite().all()) for p in x.parameters)
    ]
    if not bool(case.clean.isfinite().all()):
        return refused(
            "the loss without noise is not finite, so no estimate means anything; check the checkpoint, the scaling "
            "of the inputs and the targets.",
            {"loss": loss},
        )
    if bad:
        return refused(
            f"backprop's gradient of layer {bad[0]!r} is not finite, so there is nothing to compare with; check the "
            "checkpoint and the batch.",
            {"layers": bad},
        )
    return ok(f"the loss is {loss:.4g}; it and its gradient are finite.", {"loss": loss})
