"""Has each sample a loss of its own, and along which axis do samples lie?"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok, warning
from gradprobe.core.hooks import map_tensors, tensors
from gradprobe.core.rows import moved
from gradprobe.problems.problem import Problem

NORMS = nn.modules.batchnorm._BatchNorm


@register(
    "samples", summary="samples are independent, and along which axis", per="problem", order=2, quick=True
)
def check(case: Case) -> Verdict:
    """Say whose the losses are, and name what couples samples.

    Whether changing one sample moves another's loss was tried when the problem was made; here inputs in which the
    samples lie along axis 1 are found by changing what belongs to one sample, and modules that mix samples are
    named.
    """
    problem = case.problem
    axis = getattr(problem, "batch_axis", 0)
    value = {"loss_per": problem.loss_per, "batch_size": problem.samples, "axis": axis}
    culprit = coupling(problem)
    if problem.weights is None:
        if culprit:
            return warning(
                f"the loss is one number for the batch, and samples are coupled by {culprit}.", value
            )
        return ok(
            "the loss is one number for the batch: noise is credited with the whole batch's loss; a loss that "
            "returns [B] would cost fewer copies.",
            value,
        )
    size = len(problem.weights)
    rows = any(t.ndim > axis and t.shape[axis] == size for t in tensors(problem.inputs))
    doubtful = problem.loss_per == "copy" or not rows
    if doubtful and size > 1 and axis in (0, 1) and _samples_along(problem, 1 - axis, size):
        return warning(
            f"the samples of the inputs lie along axis {1 - axis} but are looked for along axis {axis}: their "
            "independence shows nowhere, and noise is credited with the whole batch's loss, which costs copies; "
            "transpose the batch, or say which axis it is.",
            value | {"axis": 1 - axis},
        )
    if problem.loss_per == "copy":
        return _coupled(problem, culprit, value)
    if not rows:
        return warning(
            f"no input has {size} rows for the {size} losses, so it could not be tried whether samples are "
            "independent; if not, credit is wrong: give loss_per='copy', or inputs with a row for each loss.",
            value,
        )
    return ok(f"each of the {size} samples has a loss of its own (axis {axis}).", value)


def _coupled(problem: Problem, culprit: str, value: dict[str, Any]) -> Verdict:
    if problem.asked_per == "copy":
        return ok("one loss for the copy, as asked for with loss_per='copy'.", value)
    return warning(
        f"changing one sample moves other samples' losses ({culprit or 'something in the model mixes rows'}): every "
        "sample's noise is credited with the whole batch's loss, which costs many more copies; use mode='eval', or "
        "a model whose samples are independent.",
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
    if times and getattr(problem, "batch_axis", 0) == 0:
        return f"batch_first=False: {named(times)}"
    return ""


def _samples_along(problem: Problem, axis: int, size: int) -> bool:
    """Whether changing what lies at an index along an axis of the inputs moves that sample's loss alone."""
    if not any(t.ndim > axis and t.shape[axis] == size for t in tensors(problem.inputs)):
        return False
    other = problem.at({})
    other.loss_per = "sample"  # the losses [B] themselves, not their sum
    with torch.no_grad():
        clean = other.evaluate()
        for index in (0, size - 1):
            other.inputs = map_tensors(partial(_changed, axis, size, index), problem.inputs)
            try:
                found = moved(other.evaluate(), clean)
            except Exception:
                return False
            if not bool(found[index]) or bool(found.sum() > 1):
                return False
    return True


def _changed(axis: int, size: int, index: int, t: torch.Tensor) -> torch.Tensor:
    """A tensor with another value at one index along an axis, if it has as many as there are samples."""
    if t.ndim <= axis or t.shape[axis] != size:
        return t
    new = t.clone()
    row = new.select(axis, index)
    row.copy_(
        t.select(axis, (index + 1) % size) + (t.std(correction=0) + 0.1 if t.is_floating_point() else 0)
    )
    return new
