"""Forward gradients: the derivative of the losses along random noise, times that noise.

A derivative along a direction costs one forward-mode pass and no backward pass; along unit noise eps with
E eps eps^T = I its product with eps has the gradient as its mean, with no sigma and hence no smoothing. It is the
limit of LR and ES as sigma goes to 0, free of their rounding, and as noisy: each number of noise adds its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradprobe.core.errors import one_of
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Draw
from gradprobe.estimators import register
from gradprobe.estimators.base import Assignment, Estimator
from gradprobe.estimators.readout import ReadOut


@dataclass(frozen=True)
class ForwardGradient(Estimator):
    """Derivatives along noise in every layer, and how they are read.

    A copy is two forward passes: the values and their tangents. What has no forward-mode rule in torch (custom
    autograd functions without ``jvp``, such as surrogates of spikes) is refused; fused attention is computed by plain
    products.

    Attributes:
        where: ``"activations"`` or ``"weights"``.
        injection: ``"layerwise"`` (one layer's noise at a time, the default as for ``lr`` and ``es``) or ``"joint"``
            (all at once: one copy serves all layers, each with the noise of all).
        noise: ``"gaussian"`` (the papers') or ``"rademacher"`` (signs: the least variance of all noise with
            independent entries).
        share: ``"sample"`` (own noise for each data point) or ``"batch"`` (one for all).
        encode: ``"exact"``, ``"sign"``, ``"sign-noise"`` or ``"sign-input"``; see
            :class:`~gradprobe.estimators.readout.ReadOut`. With signs the mean is a field of its own.
    """

    where: str = "activations"
    injection: str = "layerwise"
    noise: str = "gaussian"
    share: str = "sample"
    encode: str = "exact"

    def __post_init__(self) -> None:
        one_of("noise", self.noise, ("gaussian", "rademacher"))
        self.readout.check_draw(self.draw)  # their own options are checked now

    @property
    def draw(self) -> Draw:
        """Its draw."""
        return Draw(self.where, self.injection, self.noise, share=self.share, sigma=1.0, measure="derivative")

    @property
    def readout(self) -> ReadOut:
        """Its read-out: a derivative needs no centre."""
        return ReadOut("none", self.encode)

    @property
    def target(self) -> str:
        """``exact``: the gradient without noise; ``surrogate`` where only signs are used."""
        return "exact" if self.encode == "exact" else "surrogate"

    def assignment(self, layers: Sequence[Layer]) -> Assignment:
        """The same draw and read-out for every layer."""
        return {layer.name: (self.draw, self.readout) for layer in layers}


@register(
    "fg-w",
    summary="forward gradient: derivative along noise in a layer's weights, times the noise",
    order=50,
    color="#CC6677",
    target="exact",
    formula="g = (dL/dW . eps) eps, eps ~ N(0, I) in the weights; the derivative by forward mode",
    source="Baydin et al. 2022, arXiv 2202.08587, definition 1; g_w of Ren et al. 2023, arXiv 2210.03310",
)
@dataclass(frozen=True)
class FGW(ForwardGradient):
    """Forward gradient with weight perturbation: ``(dL/dW . eps) eps`` (Baydin et al., arXiv 2202.08587, def. 1).

    Mean: the gradient, exactly. A block's variance is (d+1)/m times its squared length for Gaussian noise, d numbers
    of noise (all layers' under ``injection="joint"``, the paper's choice) and m copies; (d-1)/m for Rademacher's.
    """

    where: str = "weights"
    share: str = "batch"


@register(
    "fg-a",
    summary="forward gradient: derivative along noise in a layer's output, times the noise, pulled back",
    order=51,
    color="#882255",
    target="exact",
    formula="g = sum_b w_b (dL_b/dv_b . eps_b) J_b^T eps_b, eps ~ N(0, I) in the layer's output v, J = dv/dW",
    source="Ren, Kornblith, Liao, Hinton 2023, arXiv 2210.03310, g_a (section 3, table 1)",
)
@dataclass(frozen=True)
class FGA(ForwardGradient):
    """Forward gradient with activity perturbation (g_a of Ren et al., arXiv 2210.03310, section 3).

    Mean: the gradient, exactly. The noise has as many numbers as a sample's output, not as the weights: table 1 there
    has its variance for a linear layer. Theirs spares inactive ReLUs the noise; here every output takes it.
    """
