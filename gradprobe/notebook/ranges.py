"""Acc., Sta. and its floor over any range of copies, quickly: what does not depend on the range is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._grid import line_residual, rms, trapezoid_weights, within
from gradprobe.stats._intervals import mean_se
from gradprobe.stats._law import Fit, fit
from gradprobe.stats._moments import Moments, moments
from gradprobe.stats.cosine_similarity import cosine_values

Array = npt.NDArray[np.float64]

FEWEST = 3
"""Stored points that Sta. needs."""


@dataclass(frozen=True)
class Over:
    """What is kept of layers, or of the whole model.

    Attributes:
        cosine: ``[estimator, part, seed, copies]``.
        law: The fitted law; None where the run has a single block.
        ceiling: ``value``, ``low``, ``high`` and ``state``, ``[estimator, part]``; empty without a law.
    """

    cosine: Array
    law: Fit | None
    ceiling: dict[str, npt.NDArray[Any]]


class Ranges:
    """Statistics of a run over ranges of copies, for all layers and the model at once.

    The numbers are those of ``gp.stats.accuracy``, ``stability`` and ``stability_floor``.

    Args:
        ds: Results of one run.
        reference: What estimates are held against.

    Attributes:
        copies: Stored numbers of copies.
        layers: Names of layers in execution order.
    """

    def __init__(self, ds: xr.Dataset, reference: str) -> None:
        each = moments(ds, "layer", reference)
        self.copies = each.copies
        self.layers = [str(name) for name in each.coords["layer"]]
        self._parts = {
            "layer": _over(ds, each, "layer", reference),
            "model": _over(ds, moments(ds, "model", reference), "model", reference),
        }

    def numbers(self, first: float, last: float, layer: str | None) -> dict[str, npt.NDArray[Any]]:
        """Acc., Sta., floor (means over seeds) and the ceiling of every method.

        Args:
            first: First number of copies.
            last: Last number of copies, included.
            layer: Which layer; None: the whole model.

        Returns:
            Name -> ``[estimator]``: ``accuracy stability floor ceiling ceiling_low ceiling_high state``.
        """
        part = "model" if layer is None else "layer"
        index = 0 if layer is None else self.layers.index(layer)
        kept, found = self._parts[part], self.all(first, last, part)
        chosen = {name: values[:, index] for name, values in found.items()}
        return chosen | {name: values[:, index] for name, values in kept.ceiling.items()}

    def all(self, first: float, last: float, part: str = "layer") -> dict[str, Array]:
        """Acc., Sta. and floor of every method in every layer (or the model), ``[estimator, part]``.

        Sta. and its floor are NaN where the range holds fewer than three points.

        Raises:
            UsageError: The range does not lie inside the stored grid.
        """
        kept = self._parts[part]
        chosen = within(self.copies, (first, last), least=1)
        n, values = self.copies[chosen], kept.cosine[..., chosen]
        weights = trapezoid_weights(n)
        found = {"accuracy": mean_se((weights * values).sum(-1))[0]}
        if n.size < FEWEST:
            return found | dict.fromkeys(("stability", "floor"), np.full_like(found["accuracy"], np.nan))
        found["stability"] = mean_se(rms(line_residual(values, n, weights), weights))[0]
        found["floor"] = np.full_like(found["accuracy"], np.nan)
        if kept.law is not None:
            reached = (kept.law.copies >= n[-1])[..., None]
            curve = np.where(reached, kept.law.curve(n), np.nan)
            found["floor"] = rms(line_residual(curve, n, weights), weights)
        return found


def _over(ds: xr.Dataset, m: Moments, part: str, reference: str) -> Over:
    cosine = cosine_values(m)
    try:
        law = fit(m)
        found = stats.alignment(ds, part, reference)
    except UsageError:  # a single block: there is no law
        return Over(cosine, None, {})
    names = ("ceiling", "ceiling_low", "ceiling_high", "state")
    dims = ("estimator",) if part == "model" else ("estimator", "layer")
    shape = cosine.shape[:2]
    return Over(cosine, law, {name: found[name].transpose(*dims).values.reshape(shape) for name in names})
