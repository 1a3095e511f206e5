"""What was asked for: options, estimators and layers, checked against the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gradprobe.core import spec
from gradprobe.core.errors import unknown
from gradprobe.stats._groups import chosen_layers
from gradprobe.stats._names import listed
from gradprobe.store.levels import levels_part, main_part, reference_of_levels
from gradprobe.store.paths import check_probed


@dataclass(frozen=True)
class Choice:
    """What was asked of ``gradprobe.stats``: see ``similarity`` for the meaning of each."""

    reference: str
    scale: str
    level: float
    band: str
    law: bool
    theory: bool = False


def choose_estimators(ds: xr.Dataset, given: str | Sequence[str] | None) -> list[str]:
    """Labels in the order that was asked for.

    Raises:
        UsageError: There is no such estimator.
    """
    known = [str(e) for e in ds["estimator"].values]
    if given is None:
        return known
    chosen = []
    for text in spec.split(given) if isinstance(given, str) else listed("estimators", given):
        name = text if text in known else str(spec.parse(text))
        if name not in known:
            raise unknown("estimator", text, known)
        chosen.append(name)
    return list(dict.fromkeys(chosen))


def shown_part(
    ds: xr.Dataset, reference: str, estimators: str | Sequence[str] | None, layers: str | Sequence[str] | None
) -> tuple[xr.Dataset, str]:
    """What a figure shows of a run that holds levels of noise, and what it holds them against.

    The weights, unless nothing but levels, or methods for levels, was named or is there; levels are held against
    ``smoothed``.
    """
    levels = levels_part(ds)
    if levels is None:
        return ds, reference
    own, methods = set(choose_layers(levels, None)), set(choose_estimators(levels, None))
    named = layers is not None and set(choose_layers(ds, layers)) <= own
    if named or (estimators is not None and set(choose_estimators(ds, estimators)) <= methods):
        return levels, reference_of_levels(levels, reference)
    return main_part(ds, reference)


def choose_layers(ds: xr.Dataset, given: str | Sequence[str] | None) -> list[str]:
    """Names in execution order, by name (one of "a = b" is enough) or glob.

    Raises:
        UsageError: A pattern matches no layer.
    """
    check_probed(ds)
    order = ds["order"].values
    known = [str(ds["layer"].values[np.flatnonzero(order == o)[0]]) for o in np.unique(order)]
    return known if given is None else chosen_layers(known, given)
