"""Noise families: each file registers one, with unit standard deviation.

A family is a class, and its fields, if it has any, are its options: ``gaussian``, ``low-rank(rank=4)``. A
:class:`Plain` one is a sequence of independent numbers, which sites and copies cut up. A :class:`Structured` one is
given the shapes of all sites that are noisy together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from gradprobe.core import spec
from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import torch

NOISE = Registry("noise", __name__)
register = NOISE.register

Site = tuple[str, int]
"""Layer name and call number (activation noise) or parameter number (weight noise)."""


class Family(Protocol):
    """A noise family. One whose score is a function of the sign alone may say so by ``of_signs = True``.

    Attributes:
        exact: Whether the score makes the mean the gradient of the smoothed loss.
    """

    exact: bool

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """The score at unit variance, ``-d log density / d noise``: sigma times that of ``sigma * noise``."""
        ...


@runtime_checkable
class Plain(Family, Protocol):
    """Independent numbers, all alike.

    Attributes:
        words: How many random words of 64 bits a tile takes, a multiple of 4.
    """

    words: int

    def fill(self, words: np.ndarray, out: torch.Tensor) -> None:
        """Fill ``out`` with the first numbers of a tile of unit-variance noise.

        Args:
            words: The tile's random words, uint64.
            out: float32, contiguous, on the CPU; its length is a multiple of 16 and at most a tile. A shorter
                one gets the first of the numbers that a longer one gets.
        """
        ...

    def fill_on_device(self, generator: torch.Generator, out: torch.Tensor) -> None:
        """Fill ``out`` with unit-variance noise from a generator of its device."""
        ...


@runtime_checkable
class Integrable(Family, Protocol):
    """Each number on its own is distributed alike, in a way that can be integrated over."""

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights of a quadrature over the size of unit-variance noise.

        ``E g(|eps|)`` is about ``sum weights g(nodes)``. The sign, which has equal chances, is left to the caller: a
        rule for one half sees no jump where the sign changes.

        Args:
            count: Most nodes.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which noise a structured family is to draw.

    Attributes:
        shapes: Shape of one copy's noise at each site that is noisy at once, in execution order.
        lead: How many of the first axes only repeat the rest, each time with noise of its own: 1 for weights that are
            drawn for each sample, else 0.
        copies: Which of the block's independently drawn copies, consecutive.
        key: (name, number) -> key of a stream of the block, 128 bits.
        device: Where to draw.
    """

    shapes: Mapping[Site, tuple[int, ...]]
    lead: int
    copies: range
    key: Callable[[str, int], int]
    device: torch.device


class Structured(Family, Protocol):
    """Numbers that depend on where in which site they are, or on those of other sites and copies.

    Attributes:
        where: What it may be put on: ``"activations"``, ``"weights"`` or both.
        independent: Whether the copies of a block are independent of each other. Blocks always are.
    """

    where: tuple[str, ...]
    independent: bool

    def noise(self, wanted: Wanted) -> dict[Site, torch.Tensor]:
        """Unit noise ``[copies, *shape]`` of every site, float32; a copy's depends on neither parts nor threads."""
        ...

    def refusal(self, shapes: Mapping[Site, tuple[int, ...]]) -> str:
        """Why it cannot serve sites of these shapes together; empty if it can."""
        ...


def is_structured(family: Family) -> TypeGuard[Structured]:
    """Whether a family is a :class:`Structured` one; ``isinstance`` takes longer than drawing for a small layer."""
    return hasattr(family, "noise")


def make_family(text: str) -> Family:
    """The family that a canonical text such as ``"low-rank(rank=4)"`` names; :func:`canonical` refuses others."""
    wanted = _parsed(text)
    family: Family = NOISE.get(wanted.name)(**wanted.options)
    return family


def family_name(text: str) -> str:
    """Name of the family that a text names, without its options."""
    return _parsed(text).name


def canonical(text: Any) -> str:
    """The one way to write a family and its options: defaults dropped, keys sorted.

    Args:
        text: A name, which may have options in brackets.

    Raises:
        UsageError: Unknown name, option or value.
    """
    if not isinstance(text, str):
        raise unknown("noise", text, NOISE.names())
    wanted = _parsed(text)
    kind = NOISE.get(wanted.name)
    options = {f.name: f.default for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    for key in wanted.options:
        if key not in options:
            raise unknown(f"option of noise {wanted.name}", key, options)
    if options:
        made = kind(**wanted.options)
        given = {key: getattr(made, key) for key in options}
        return spec.label(wanted.name, {k: v for k, v in given.items() if v != options[k]})
    return wanted.name


def check_place(text: str, where: str) -> None:
    """Refuse a family where it has no meaning.

    Args:
        text: The family, canonical.
        where: ``"activations"`` or ``"weights"``.

    Raises:
        UsageError: It cannot be put there.
    """
    family = make_family(text)
    if is_structured(family) and where not in family.where:
        raise UsageError(
            f"noise={text} is for {' and '.join(family.where)}, not for {where}; use another noise, or "
            f"{'es' if where == 'activations' else 'lr'}."
        )


_parsed = functools.cache(spec.parse)
