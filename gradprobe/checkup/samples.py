"""Has each sample a loss of its own, and along which axis do samples lie?"""

from __future__ import annotations

from typing import Any

from torch import nn

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok, warning
from gradprobe.core.hooks import tensors
from gradprobe.problems.problem import Problem

NORMS = nn.modules.batchnorm._BatchNorm


@register(
    "samples", summary="samples are independent, and along which axis", per="problem", order=2, quick=True
)
def check(case: Case) -> Verdict:
    """Say whose the losses are, and name what couples samples.

    Whether changing one sample moves another's loss, and along which axis of the inputs, was tried when the
    problem was made; here modules that mix samples are named.
    """
    problem = case.problem
    axis = problem.batch_axis
    value = {"loss_per": problem.loss_per, "batch_size": problem.samples, "axis": axis}
    culprit = coupling(problem)
    if problem.weights is None:
        if culprit:
            return warning(
                f"the loss is one number for the batch and samples are coupled by {culprit}: noise in one sample "
                "moves the others, which costs copies; use mode='eval'.",
                value,
            )
        return ok(
            "the loss is one number for the batch: noise is credited with the whole batch's loss; a loss that "
            "returns [B] would cost fewer copies.",
            value,
        )
    if problem.loss_per == "copy":
        return _coupled(problem, culprit, value)
    size = len(problem.weights)
    if size > 1 and not any(problem.rows.axis_of(t) is not None for t in tensors(problem.inputs)):
        return warning(
            f"no input has {size} rows for the {size} losses, so it could not be tried whether samples are "
            "independent; if not, credit is wrong: give loss_per='copy', or inputs with a row for each loss.",
            value,
        )
    return ok(f"each of the {size} samples has a loss of its own (axis {axis} of the inputs).", value)


def _coupled(problem: Problem, culprit: str, value: dict[str, Any]) -> Verdict:
    if problem.asked_per == "copy":
        return ok("one loss for the copy, as asked for with loss_per='copy'.", value)
    return warning(
        f"changing one sample moves other samples' losses ({culprit or 'something in the model mixes rows'}): every "
        "sample's noise is credited with the whole batch's loss, which costs many more copies; that is as it must be "
        "in a graph, else use mode='eval' or another batch_axis.",
        value,
    )


def coupling(problem: Problem) -> str:
    """Modules of a model that mix samples, as text; empty if there is none that is known to."""
    norms, times = [], []
    for name, module in problem.twin.named_modules():
        own_statistics = isinstance(module, NORMS) and (module.training or module.running_mean is None)
        norms += [name] * own_statistics
        times += [name] * (getattr(module, "batch_first", None) is False)
    if norms:
        return f"BatchNorm with batch statistics: {named(norms)}"
    if times and problem.batch_axis == 0:
        return f"batch_first=False: {named(times)}"
    return ""
