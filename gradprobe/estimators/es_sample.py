"""ES with weights drawn for each sample."""

from __future__ import annotations

from dataclasses import dataclass

from gradprobe.estimators import register
from gradprobe.estimators.perturbation import ES


@register(
    "es-sample",
    summary="ES with its own weight noise for each sample, credited with that sample's loss",
    order=40,
    color="#F0E442",
    target="smoothed",
    formula="sum_b w_b (L_b(theta + sigma eps_b) - c_b) eps_b / sigma",
    source="fmmarkmq/LR_Test (cnn/module.py, Linear_ and Conv2d_); ALR, arXiv 2403.12320, section 5",
)
@dataclass(frozen=True)
class SampleES(ES):
    """ES as the code of the paper's group has it: every sample of every copy runs with weights of its own.

    A copy averages over B independent perturbations, one for each sample, for what one forward of the batch computes
    (with B sets of weights, which take B times the memory and cannot share a matrix product). It needs losses of the
    samples. Mean: the gradient of the weight-smoothed loss, the same as that of ``es``.
    """

    share: str = "sample"
