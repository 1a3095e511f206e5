"""The cosine of a fixed plan, with the jackknife of the whole formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.stats._intervals import Array, t_quantile
from gradprobe.stats._law import TWO_SIDED
from gradprobe.stats._offers import Offers
from gradprobe.stats._sharing import Index


@dataclass(frozen=True)
class Chosen:
    """A method, copies and a scale for each layer; arrays ``[layer]``, or ``[layer, seed]``.

    Attributes:
        a: A of each seed; ``x``, ``t`` and ``g`` alike.
        x: X.
        t: T.
        g: |g|^2.
        fixed: 1/ceiling^2 where it is not estimated, else NaN.
        inverse: 1/ceiling^2 that the plan reckons with.
        gradient: Where the mean is taken to be the gradient.
        copies: n.
        scale: What directions are multiplied by.
    """

    a: Array
    x: Array
    t: Array
    g: Array
    fixed: Array
    inverse: Array
    gradient: npt.NDArray[np.bool_]
    copies: Array
    scale: Array

    @classmethod
    def of(cls, found: Offers, mapping: Index, copies: Array) -> Chosen:
        """The methods of a mapping, each layer scaled to unit gain."""
        rows = np.arange(len(found.layers))

        def pick(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.asarray(values[mapping, rows])

        a, x, t, g = (pick(v) for v in (found.a, found.x, found.t, found.g))
        mean_a, mean_g = _means(a)[:, 0], _means(g)[:, 0]
        gradient = pick(found.gradient)
        scale = np.where(gradient, 1.0, mean_g / mean_a)
        return cls(a, x, t, g, pick(found.fixed), pick(found.inverse), gradient, copies, scale)

    def alone(self, layer: int) -> Chosen:
        """One layer."""
        return Chosen(*(v[layer : layer + 1] for v in vars(self).values()))

    def forecast(self) -> tuple[float, float, float]:
        """Predicted cosine with a 95 % interval; NaN ends below three seeds.

        cos = sum s A / sqrt(sum s^2 (X + T/n) sum G) with A, X, T and G averaged over seeds; X = A^2/(G ceiling^2)
        where the ceiling is not estimated. Where the mean is taken to be the gradient the value has A = G (the noise
        of A is mostly larger than any fault of that). The standard error has A as it is, so that it covers such a
        fault: it is that of the delete-one-seed jackknife at fixed methods, copies and scales. Where only a lower
        bound of a ceiling is known, the value and the low end are those of the bound, the high end that of a ceiling
        of 1.
        """
        value = float(self._cosine(self.inverse, self.gradient)[0])
        best = float(self._cosine(np.where(self.fixed > 1, 1.0, self.inverse), self.gradient)[0])
        spread = max(self._error(self.fixed), self._error(np.where(self.fixed > 1, 1.0, self.fixed)))
        count = np.isfinite(self.a).sum(-1).min()
        half = float(t_quantile(TWO_SIDED, np.array(float(count)))) * spread
        return value, value - half, min(best + half, 1.0) if half == half else half

    def _cosine(self, fixed: Array, gradient: npt.NDArray[np.bool_]) -> Array:
        """Of all seeds, and without each one ``[1 + seed]``; A = G where the mean is the gradient."""
        a, x, t, g = (_means(v) for v in (self.a, self.x, self.t, self.g))
        a = np.where(gradient[:, None], g, a)
        with np.errstate(all="ignore"):
            x = np.where(np.isnan(fixed)[:, None], x, fixed[:, None] * a**2 / g)
            square = (self.scale**2)[:, None] * (x + t / self.copies[:, None])
            return np.asarray((self.scale[:, None] * a).sum(0) / np.sqrt(square.sum(0) * g.sum(0)))

    def _error(self, fixed: Array) -> float:
        """Standard error of the cosine."""
        there = np.isfinite(self.a).any(0)
        rest = self._cosine(fixed, np.zeros_like(self.gradient))[1:][there]
        if rest.size < 2:
            return float("nan")
        return float(np.sqrt((rest.size - 1) / rest.size * ((rest - rest.mean()) ** 2).sum()))


def _means(values: Array) -> Array:
    """Mean over seeds, then without each seed ``[layer, 1 + seed]``; a seed that is not there changes nothing."""
    valid = np.isfinite(values)
    filled = np.where(valid, values, 0.0)
    total, count = filled.sum(-1, keepdims=True), valid.sum(-1, keepdims=True)
    with np.errstate(all="ignore"):
        rest = np.where(count > valid, (total - filled) / (count - valid), np.nan)
        return np.concatenate([total / count, rest], axis=-1)
