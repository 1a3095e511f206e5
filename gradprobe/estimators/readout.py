"""A read-out: the rule that turns a draw into directions. Many share one draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.core.layer import Layer
from gradprobe.core.spec import label
from gradprobe.engine.derivable import not_derivable
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise import Family
from gradprobe.estimators.centres import CENTRES, Centre
from gradprobe.layers import rule_for
from gradprobe.problems.problem import Problem

ENCODES = ("exact", "sign", "sign-noise", "sign-input")


@dataclass(frozen=True)
class ReadOut:
    """Centre of the losses and encoding of the score.

    Attributes:
        centre: What a copy's loss is turned into, by the name of one of :data:`CENTRES`: less ``"clean"`` (the
            loss without noise), ``"none"`` or ``"mean"`` (of the block's other copies; the antithetic partner is
            left out too, so that the centre is independent of the copy's noise), or its ``"rank"`` in the block.
        encode: ``"exact"``: score x Jacobian. ``"sign"``: sign of the noise x sign of the Jacobian (ALR,
            eq. 3). ``"sign-noise"`` and ``"sign-input"`` encode one factor only. Wherever the noise is
            encoded there is no 1/sigma (eq. 3), so the length is about sigma sqrt(2/pi) times a gradient's.
    """

    centre: str = "clean"
    encode: str = "exact"

    def __post_init__(self) -> None:
        one_of("centre", self.centre, tuple(CENTRES.names()))
        one_of("encode", self.encode, ENCODES)

    def __str__(self) -> str:
        return label("readout", asdict(self))

    @property
    def shaping(self) -> Centre:
        """What is done to the losses."""
        centre: Centre = CENTRES.get(self.centre)()
        return centre

    @property
    def encodes_noise(self) -> bool:
        """Whether only the sign of the noise is used."""
        return self.encode in ("sign", "sign-noise")

    @property
    def encodes_input(self) -> bool:
        """Whether only the sign of the layer's Jacobian is used."""
        return self.encode in ("sign", "sign-input")

    def check_block(self, copies: int, paired: bool) -> None:
        """Refuse a block that is too small for the centre.

        Raises:
            UsageError: The centre needs other copies than there are.
        """
        if copies < self.shaping.fewest(paired):
            raise UsageError(
                f"centre={self.centre} needs other copies in the block, and a block of {copies} has none; use a "
                "larger block (more copies), or another centre."
            )

    def check_draw(self, draw: Draw) -> None:
        """Refuse a draw that cannot be read so.

        Raises:
            UsageError: Its copies depend on each other, and the centre subtracts something of theirs; or one factor
                is to be encoded alone where noise in weights leaves no other.
        """
        if draw.where == "weights" and self.encodes_noise != self.encodes_input:
            raise UsageError(
                f"encode={self.encode} has no meaning for weight noise, which sees no input; use encode=sign."
            )
        if self.shaping.exact and self.shaping.whole and not draw.independent:
            raise UsageError(
                f"centre={self.centre} would be biased: under noise={draw.noise} the block's other copies are not "
                "independent of a copy; use centre=clean."
            )

    @property
    def cotangent(self) -> tuple[str, bool]:
        """What its cotangents depend on; read-outs that share it differ in the encoding of the input at most."""
        return self.centre, self.encodes_noise

    def score(self, family: Family, noise: torch.Tensor) -> torch.Tensor:
        """Score of unit noise, or its sign, of the noise's shape; times :meth:`scale`."""
        return torch.sign(noise) if self.encodes_noise else family.score(noise)

    def scale(self, draw: Draw, layer: str) -> float:
        """What makes it the score of the layer's noise: 1/sigma; 1 where only the sign is used."""
        return 1.0 if self.encodes_noise else 1.0 / draw.sigma_of(layer)

    def centred(
        self, losses: torch.Tensor, clean: torch.Tensor, kept: torch.Tensor, paired: bool
    ) -> torch.Tensor:
        """Centred losses; 0 for copies that are left out.

        Args:
            losses: ``[m]`` or ``[m, B]``.
            clean: Losses without noise, ``[]`` or ``[B]``.
            kept: Which copies count, ``[m]``, or ``[m, B]`` if the columns are problems of their own.
            paired: Whether copy k + m/2 is the antithetic partner of copy k.

        Returns:
            Same shape as ``losses``.
        """
        mask = kept.view(*kept.shape, *[1] * (losses.ndim - kept.ndim))
        self.check_block(len(losses), paired)
        centred = self.shaping.centred(torch.where(mask, losses, 0.0), clean, mask, paired)
        return torch.where(mask, centred, 0.0)


def kept_copies(losses: torch.Tensor, paired: bool) -> torch.Tensor:
    """Copies all of whose losses are finite ``[m]``; a pair is kept or left out as a whole."""
    finite = losses.isfinite()
    return whole_pairs(finite if finite.ndim == 1 else finite.view(len(losses), -1).all(1), paired)


def whole_pairs(finite: torch.Tensor, paired: bool) -> torch.Tensor:
    """Copies that are finite ``[m, ...]``, and whose antithetic partner is."""
    return finite & finite.roll(len(finite) // 2, 0) if paired else finite


def refusal(problem: Problem, layer: Layer, draw: Draw, readout: ReadOut) -> str:
    """Why a draw and a read-out cannot serve a layer; empty if they can.

    Args:
        problem: The problem.
        layer: One of its layers.
        draw: The draw.
        readout: The read-out.
    """
    why = _refusal(problem, layer, draw, readout)
    return not_derivable(problem, draw, layer) if not why and draw.derived else why


def _refusal(problem: Problem, layer: Layer, draw: Draw, readout: ReadOut) -> str:
    """The same, for reasons that need no trial."""
    if draw.where == "weights":
        if draw.share == "sample" and not problem.separable:
            return "weights drawn for each sample need samples with losses of their own; use share=batch"
        return ""
    if not layer.activations:
        return layer.note
    if draw.share == "batch" and layer.credit == "copy":
        return "one activation noise for the whole batch needs per-sample losses; use share=sample"
    if draw.injection == "joint" and layer.contains:
        return f"layers run inside it ({', '.join(layer.contains)}); use injection=layerwise"
    encodes = all(rule_for(problem.twin.get_submodule(path)).encodes for path in layer.modules)
    if readout.encodes_input and not encodes:
        return f"the sign of the input is not defined for a {layer.kind}; use encode=sign-noise"
    return ""
