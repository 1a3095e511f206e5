"""Hybrid: ES where weights are few and outputs many (the first layers), LR after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from gradprobe.core.errors import one_of, whole
from gradprobe.core.layer import Layer
from gradprobe.engine.draw import Sigma
from gradprobe.estimators import register
from gradprobe.estimators.base import Assignment, Estimator
from gradprobe.estimators.perturbation import ES, LR, Perturbation


@register(
    "hybrid",
    summary="ES in the first two layers with matrix weights, LR in the others",
    order=30,
    color="#000000",
    target="smoothed",
    formula="es in the first two layers with matrix weights, lr in the others",
    source="ALR, arXiv 2403.12320, section 5",
)
@dataclass(frozen=True)
class Hybrid(Estimator):
    """A mapping of layers to ES and LR (ALR paper, section 5: ES for the first two layers, LR for the rest).

    Layers before the last ES layer whose parameters are vectors (normalisations) get LR like the others.
    Under layer-wise injection it needs no run of its own: it reads what ``lr`` and ``es`` read. Under joint
    injection ES layers are noisy together in one draw, LR layers together in another.

    Attributes:
        es_layers: How many of the first layers, in execution order, whose weight has two or more dimensions
            get ES.
        injection: As for ``lr`` and ``es``; so are ``noise``, ``antithetic``, ``sigma`` and ``centre``.
        encode: ``"exact"`` or ``"sign"``.
    """

    es_layers: int = 2
    injection: str = "layerwise"
    noise: str = "gaussian"
    antithetic: bool = False
    sigma: Sigma = 0.01
    centre: str = "clean"
    encode: str = "exact"

    def __post_init__(self) -> None:
        whole("es_layers", self.es_layers, 0)
        one_of("encode", self.encode, ("exact", "sign"))
        object.__setattr__(self, "noise", self.parts[0].noise)  # one way to write it; options are checked now

    @property
    def parts(self) -> tuple[Perturbation, Perturbation]:
        """The ES and the LR that it is made of."""
        shared = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "es_layers"}
        return ES(**shared), LR(**shared)

    @property
    def target(self) -> str:
        """What its parts' means equal."""
        return self.parts[1].target

    def assignment(self, layers: Sequence[Layer]) -> Assignment:
        """ES for the first ``es_layers`` layers with matrix weights, LR for the others."""
        es, lr = self.parts
        return {x.name: (es.draw, es.readout) if self._is_first(x) else (lr.draw, lr.readout) for x in layers}

    def _is_first(self, layer: Layer) -> bool:
        """Whether it is among the model's first layers with matrix weights, whichever layers are selected."""
        return any(len(shape) > 1 for shape in layer.shapes) and layer.matrices_before < self.es_layers


@register(
    "a-hybrid",
    summary="hybrid with signs: AES in the first two layers with matrix weights, ALR in the others",
    order=31,
    color="#56B4E9",
    target="surrogate",
    formula="aes in the first two layers with matrix weights, alr in the others",
    source="ALR, arXiv 2403.12320, section 5",
)
@dataclass(frozen=True)
class AHybrid(Hybrid):
    """The sign-encoded hybrid (ALR paper, section 5)."""

    encode: str = "sign"
