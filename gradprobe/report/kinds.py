"""Which kind of claim the evidence allows, for every layer under every method at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.stats._contrasts import p_two_sided
from gradprobe.stats._holm import benjamini_hochberg, holm

NEARLY, GOOD, NOISE, BIAS, AGAINST = "nearly exact", "good", "noise-limited", "bias-limited", "against"
OPEN, NOTHING, SMALL, BROKEN = "open", "nothing", "too small", "law broken"
REFUSED, MISSING, UNDEFINED = "refused", "missing", "undefined"
KINDS = (NEARLY, GOOD, NOISE, BIAS, AGAINST, OPEN, NOTHING, SMALL, BROKEN, REFUSED, MISSING, UNDEFINED)
CLAIMED = (NEARLY, GOOD, NOISE, BIAS, AGAINST, OPEN)
"""Kinds with numbers."""

ALPHA = 0.05
"""Chance that any claim of one kind is false, over all layers and methods (Holm, two-sided tests)."""

TARGET = 0.9
"""Cosine that is asked for: an angle of 26 degrees, at which a step of the right length lowers a linear loss by nine
tenths of what the gradient's own step would."""

EXACT = 0.95
"""Cosine from which on a direction is called nearly exact: an angle of 18 degrees, a tenth of its square lost."""

KNOWN = ("resolved", "bounded", "unresolved")
MODEL = "whole model"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Targets:
    """What counts as good.

    Attributes:
        cosine: The cosine that is asked for.
        exact: The cosine from which on a direction is called nearly exact.
    """

    cosine: float
    exact: float


@dataclass(frozen=True)
class Evidence:
    """What is known of cells ``[estimator, layer]`` or ``[estimator]``.

    Attributes:
        law: Result of ``alignment``.
        now: The law's cosine at the copies that each cell has: value, ``_low`` and ``_high``.
        aim: Result of ``needed`` for the cosine that is asked for.
        near: The same for the cosine that is called nearly exact.
        mean: Like ``aim``, with the declared mean in place of the cells' own.
        declared: Where ``mean`` has it.
        broken: Where the law does not hold.
        targets: What counts as good.
    """

    law: xr.Dataset
    now: dict[str, npt.NDArray[np.float64]]
    aim: xr.Dataset
    near: xr.Dataset
    mean: xr.Dataset
    declared: Flags
    broken: Flags
    targets: Targets

    def kinds(self) -> tuple[npt.NDArray[np.str_], Flags]:
        """Kind of every cell, and where it rests on the declared mean.

        A claim needs three things: its test, corrected over all cells with noise; the 95 % interval of what is quoted
        with it on the right side of the threshold; a run large enough for that interval.
        """
        state, exact = self.law["state"].values, self.exact
        p_along = p_two_sided(self.law["A"].transpose(..., "seed").values)
        low, high = self.now["_low"], self.now["_high"]
        short = self._sure(self.aim["p_reached"].values) & (high < self.targets.cosine)
        noise = short & self._above(self.aim)
        declared = short & self._above(self.mean) & self.declared
        names = [
            MISSING,
            REFUSED,
            UNDEFINED,
            SMALL,
            BROKEN,
            NEARLY,
            GOOD,
            AGAINST,
            BIAS,
            NOISE,
            NOISE,
            NOTHING,
        ]
        with np.errstate(invalid="ignore"):
            conditions = [
                state == "missing",
                state == "refused",
                state == "undefined",
                ~np.isin(state, KNOWN) | ~self.law["enough"].values,
                ~exact & self.broken,
                self._beyond(self.near, self.targets.exact),
                self._beyond(self.aim, self.targets.cosine),
                self._sure(p_along) & (high < 0),
                self._biased(),
                noise,
                declared,
                ~self._there(p_along) | ((low <= 0) & (high >= 0)),
            ]
        kind = np.select(conditions, names, default=OPEN)
        return kind, np.asarray((kind == NOISE) & ~noise)

    @property
    def exact(self) -> Flags:
        """Where there is no noise."""
        return np.asarray(self.law["exact"].values.astype(bool))

    def _tried(self, p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """P values of cells with noise that claims can be made of; NaN elsewhere."""
        known = np.isin(self.law["state"].values, KNOWN) & self.law["enough"].values
        return np.where(known & ~self.broken & ~self.exact, p, np.nan)

    def _sure(self, p: npt.NDArray[np.float64], level: float = ALPHA) -> Flags:
        """Where a test is beyond doubt over all cells."""
        adjusted = holm_once(self._tried(p))
        return np.asarray(self.exact | (np.nan_to_num(adjusted, nan=1.0) <= level))

    def _there(self, p: npt.NDArray[np.float64]) -> Flags:
        """Where there is a cosine to speak of: of those shown, a twentieth at most is expected to be noise."""
        adjusted = benjamini_hochberg(self._tried(p))
        return np.asarray(self.exact | (np.nan_to_num(adjusted, nan=1.0) <= ALPHA))

    def _beyond(self, need: xr.Dataset, threshold: float) -> Flags:
        """Where the cosine is above a threshold."""
        return self._sure(need["p_reached"].values) & need["reached"].values & (self.now["_low"] > threshold)

    def _above(self, need: xr.Dataset) -> Flags:
        """Where the ceiling is above the cosine that is asked for, so that some number of copies gets there.

        There are two ways to show it (the cells' own mean, and the declared one): each has half of the level.
        """
        finite = np.isfinite(need["copies_high"].values)
        return self._sure(need["p_ceiling"].values, ALPHA / 2) & need["ceiling_above"].values & finite

    def _biased(self) -> Flags:
        """Where the ceiling is below it."""
        top = np.where(self.exact, self.now[""], self.law["ceiling_high"].values)
        below = self._sure(self.aim["p_ceiling"].values) & ~self.aim["ceiling_above"].values
        return np.asarray(below & (top < self.targets.cosine) & (self.law["state"].values == "resolved"))


def holm_once(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's adjusted p values with each test counted once: a hybrid's cells are those of what it consists of.

    Args:
        p: ``[estimator, ...]``; two equal values at the same place are one test.
    """
    first = np.ones(p.shape, dtype=bool)
    for e in range(len(p)):
        first[e] = ~(p[:e] == p[e]).any(0)
    adjusted = holm(np.where(first, p, np.nan))
    for e in range(len(p)):
        for other in range(e):
            adjusted[e] = np.where(
                ~first[e] & (p[other] == p[e]) & first[other], adjusted[other], adjusted[e]
            )
    return adjusted
