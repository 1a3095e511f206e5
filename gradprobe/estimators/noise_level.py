"""The level of the noise itself: the derivative of the smoothed loss with respect to sigma, without backprop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.layer import Layer
from gradprobe.core.level import Level, level_of
from gradprobe.engine.draw import Draw, Sigma
from gradprobe.engine.noise import make_family
from gradprobe.estimators import register
from gradprobe.estimators.base import Assignment, Estimator
from gradprobe.estimators.readout import ReadOut, refusal
from gradprobe.layers import rule_for
from gradprobe.layers.find import find_layers
from gradprobe.problems.problem import Problem


@register(
    "noise-level",
    summary="dE/dsigma of the noise in each layer: loss x (eps^2 - 1)/sigma, for learned noise levels",
    order=70,
    color="#BBBBBB",
    target="smoothed",
    formula="dE/dsigma = E[(L - c) (eps^2 - 1) / sigma], summed over the layer's noise",
    source="Approximated likelihood ratio, arXiv 2403.12320, eq. 1, second line",
)
@dataclass(frozen=True)
class NoiseLevel(Estimator):
    """Likelihood ratio for levels of noise (arXiv 2403.12320, eq. 1): E[(L - c) (eps^2 - 1)/sigma].

    Its parameters are the levels: ``conv1.sigma``, one for each layer, or ``conv1.sigmas``, one for each neuron. A
    layer's sigma gets the sum over its samples (each with its own loss), positions and calls. Noise of another
    density has the score ``(eps s(eps) - 1)/sigma``, s its own score.

    Its mean is the derivative of the smoothed loss with respect to sigma: the pathwise E[dL/dv eps], which is the
    reference ``smoothed``. The loss without noise knows no sigma: backprop's reference ``bp`` is 0, so that cosines
    with it are undefined, and a probe of levels asks for ``smoothed`` by itself. For small sigma the mean is sigma
    times the trace of the Hessian with respect to what is noisy, while the loss's slope adds noise that does not
    shrink with sigma: use a sigma that can be seen (0.1 and more), and ``antithetic=True``, under which that slope
    cancels, for the score of opposite noise is the same.

    Attributes:
        where: ``"activations"`` (default, as in the paper) or ``"weights"`` (then ``share=batch`` costs a forward a
            copy; ``share=sample`` one a sample).
        injection: As for ``lr``; so are ``antithetic``, ``share``, ``sigma`` and ``centre``. It has the noise of an
            ``lr`` with the same options.
        noise: ``gaussian`` or another family with a density that has a score.
        per: ``"layer"`` (one sigma, the default: as noise is drawn here) or ``"neuron"``: one for each unit of a
            linear or recurrent layer and for each channel of a convolution, all of which stand at ``sigma`` now.
    """

    own_layers: ClassVar[bool] = True

    where: str = "activations"
    injection: str = "layerwise"
    noise: str = "gaussian"
    antithetic: bool = False
    share: str = "sample"
    sigma: Sigma = 0.01
    centre: str = "clean"
    per: str = "layer"

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.draw.noise)  # one way to write it; options are checked now
        self.readout.check_draw(self.draw)
        one_of("per", self.per, ("layer", "neuron"))
        if not make_family(self.noise).exact:
            raise UsageError(f"noise={self.noise} has no score of its level; use gaussian or laplace.")
        if self.where == "weights" and self.per == "neuron":
            raise UsageError("weight noise has one sigma for each layer; use per=layer.")

    @property
    def draw(self) -> Draw:
        """Its draw."""
        return Draw(self.where, self.injection, self.noise, self.antithetic, self.share, self.sigma)

    @property
    def readout(self) -> ReadOut:
        """Its read-out."""
        return ReadOut(self.centre)

    @property
    def target(self) -> str:
        """The derivative of the smoothed loss, where losses weigh as they are."""
        return "smoothed" if self.readout.shaping.exact else "surrogate"

    def assignment(self, layers: Sequence[Layer]) -> Assignment:
        """The same draw and read-out for every level."""
        return {layer.name: (self.draw, self.readout) for layer in layers}

    def brings(self, problem: Problem, layers: Sequence[Layer]) -> list[Layer]:
        """The levels of the layers' noise."""
        every = problem.once("layers", lambda: find_layers(problem)).layers
        taken = {*problem.parameters, *(layer.name for layer in every)}
        return [level_of(layer, taken, self._neurons(problem, layer)) for layer in layers]

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Layers that are no levels, and levels whose noise cannot be drawn or has no known neurons."""
        return {x.name: why for x in layers if (why := self._refusal(problem, x))}

    def _refusal(self, problem: Problem, layer: Layer) -> str:
        if not isinstance(layer, Level):
            return "noise-level estimates levels of noise, and this layer's parameters are weights"
        if (self.per == "neuron") != (layer.neurons is not None):
            if self.per == "neuron" and self._neurons(problem, layer.noisy) is None:
                return (
                    f"which axis of a {layer.noisy.kind}'s output has its neurons is not known; use per=layer"
                )
            return f"it is no level of per={self.per}"
        return refusal(problem, layer.noisy, self.draw, self.readout)

    def _neurons(self, problem: Problem, layer: Layer) -> int | None:
        """Axis of the neurons in the layer's output, if each is to have a level and all its calls agree."""
        found = {rule_for(problem.twin.get_submodule(path)).neurons for path in layer.modules}
        if self.per != "neuron" or len(found) != 1 or None in found or not layer.outputs:
            return None
        axis, shapes = found.pop(), layer.outputs
        assert axis is not None
        places = {(axis % len(shape), shape[axis]) for shape in shapes if len(shape) > 1}
        if len(places) != 1 or any(len(shape) < 2 for shape in shapes):
            return None
        place, _ = places.pop()
        return None if place == layer.axis else place
