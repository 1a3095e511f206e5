"""A draw: noise put somewhere, in what way; not yet what is made of it."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gradprobe.core.errors import UsageError, one_of, positive, unknown
from gradprobe.core.layer import Layer
from gradprobe.core.spec import label
from gradprobe.engine.noise import canonical, check_place, is_structured, make_family

Sigma = float | Mapping[str, float]

CHOICES = {
    "where": ("activations", "weights"),
    "injection": ("layerwise", "joint"),
    "share": ("sample", "batch"),
    "measure": ("loss", "derivative"),
}


@dataclass(frozen=True)
class Draw:
    """Where noise goes and how it is drawn.

    Attributes:
        where: ``"activations"`` (the output of a layer) or ``"weights"``.
        injection: ``"layerwise"`` (one layer noisy at a time) or ``"joint"`` (all at once).
        noise: Family, with its options if it has any: ``gaussian``, ``laplace``, ``rademacher``, ``sobol``,
            ``low-rank(rank=4)``.
        antithetic: Copy k + m/2 of a block of m uses the negative of copy k's noise.
        share: ``"sample"`` (own noise for each data point) or ``"batch"`` (one for all).
        sigma: Standard deviation of the noise, in the units of what it is added to: one number, or
            {layer glob: number} where an exact name wins over globs and longer globs over shorter ones.
        measure: What is measured of a copy: ``"loss"`` (the losses under its noise) or ``"derivative"`` (their
            derivative along its unit noise, at no noise: forward-mode differentiation). A derivative has no sigma
            (it is 1), and that along the opposite noise is its negative, so there are no antithetic pairs.
    """

    where: str = "activations"
    injection: str = "layerwise"
    noise: str = "gaussian"
    antithetic: bool = False
    share: str = "sample"
    sigma: Sigma = 0.01
    measure: str = "loss"

    def __post_init__(self) -> None:
        for option, allowed in CHOICES.items():
            one_of(option, getattr(self, option), allowed)
        object.__setattr__(self, "noise", canonical(self.noise))
        check_place(self.noise, self.where)
        if not isinstance(self.antithetic, bool):
            raise UsageError(f"antithetic must be True or False, not {self.antithetic!r}.")
        for value in self.sigma.values() if isinstance(self.sigma, Mapping) else [self.sigma]:
            positive("sigma", value)
        if self.derived and self.antithetic:
            raise UsageError(
                "a derivative along the opposite noise is its own negative, so an antithetic partner would add "
                "nothing; leave antithetic out."
            )
        if self.derived and self.sigma != 1.0:
            raise UsageError(f"a derivative is taken at no noise and has no sigma; give 1, not {self.sigma}.")

    @property
    def alone(self) -> bool:
        """Whether every sample has weights of its own."""
        return self.where == "weights" and self.share == "sample"

    def __str__(self) -> str:
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.derived:
            del options["measure"]  # runs of before there were derivatives are found under the same name
        return label("draw", options)

    @functools.cached_property
    def _text(self) -> str:
        return str(self)

    def __hash__(self) -> int:
        return hash(self._text)  # of the text, not of a number: a process's hashes are its own

    @property
    def derived(self) -> bool:
        """Whether derivatives are measured: then no layer ever sees a noisy input."""
        return self.measure == "derivative"

    @property
    def passes(self) -> int:
        """Forward passes of a copy: one, or two for a derivative (values and their tangents)."""
        return 2 if self.derived else 1

    @property
    def independent(self) -> bool:
        """Whether the copies of a block are independent of each other (but for antithetic partners)."""
        family = make_family(self.noise)
        return not is_structured(family) or family.independent

    def kind(self, layers: Sequence[Layer]) -> tuple[Any, ...]:
        """What an engine sees of it where these layers are noisy together: neither family nor pairs.

        Args:
            layers: The layers.
        """
        noisy = tuple((layer.name, self.sigma_of(layer.name)) for layer in layers)
        return self.where, self.injection, self.share, self.measure, noisy

    def sigma_of(self, layer: str) -> float:
        """Standard deviation of the noise of a layer.

        Raises:
            UsageError: No glob of ``sigma`` matches the layer.
        """
        if not isinstance(self.sigma, Mapping):
            return float(self.sigma)
        hits = [glob for glob in self.sigma if _covers(glob, layer)]
        if not hits:
            raise UsageError(
                f"sigma={dict(self.sigma)} says nothing of layer {layer!r}; add it, or a '*' for the rest."
            )
        return float(self.sigma[max(hits, key=lambda glob: (glob in _names(layer), len(glob)))])

    def check_sigma(self, layers: list[str]) -> None:
        """Refuse a sigma that misses a layer or names none.

        Args:
            layers: Names of all layers of the model.

        Raises:
            UsageError: A key of ``sigma`` matches no layer.
        """
        for glob in self.sigma if isinstance(self.sigma, Mapping) else ():
            if not any(_covers(glob, layer) for layer in layers):
                raise unknown("layer in sigma", glob, layers)

    def check_block(self, copies: int) -> None:
        """Refuse a block that this draw cannot fill.

        Raises:
            UsageError: Antithetic pairs do not fit into an odd block.
        """
        if self.antithetic and copies % 2:
            raise UsageError(
                f"antithetic pairs do not fit into a block of {copies}; use an even number of copies in an "
                "even block."
            )

    def units(self, layers: list[str]) -> list[list[str]]:
        """The layers that are noisy together: each on its own, or all."""
        return [layers] if self.injection == "joint" else [[layer] for layer in layers]


def _names(layer: str) -> set[str]:
    return {layer, *layer.split(" = ")}


def _covers(glob: str, layer: str) -> bool:
    return any(name == glob or fnmatch.fnmatchcase(name, glob) for name in _names(layer))
