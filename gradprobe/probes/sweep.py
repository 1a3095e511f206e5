"""``sigma_sweep``: one probe run that holds every estimator at every size of its noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xarray as xr

from gradprobe.core import spec
from gradprobe.core.errors import UsageError, positive
from gradprobe.estimators.base import Estimator, Labelled, make
from gradprobe.probes.run import probe
from gradprobe.problems.problem import Problem

SIGMAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""A network of order one loses its gradient to rounding near 1e-6 in float32, and to smoothing near 1."""

_PER_LAYER = "sigma_sweep varies one sigma for all layers; probe sigma={layer: number} by gp.probe instead."


def sigma_sweep(
    problem: Problem,
    estimators: Sequence[str | Estimator] | str | Estimator = ("lr", "es"),
    sigmas: Sequence[float] = SIGMAS,
    *,
    reference: str | Sequence[str] = ("bp", "smoothed"),
    **options: Any,
) -> xr.Dataset:
    """Probe estimators at several sizes of their noise, in one run.

    Too large a sigma smooths the loss away: the mean direction is the gradient of another loss, and its curvature
    adds variance. Too small a sigma drowns the change of the loss in its own rounding, which 1/sigma amplifies: in
    float32 a loss L is known to about 1e-7 L, which adds noise of about 1e-7 L sqrt(D)/sigma (D: coordinates of the
    noise) to a copy's direction; where sigma comes near the spacing of the floats that it is added to, rounding
    is no longer like noise and turns the mean as well. ``gp.stats.decompose`` splits what is missing,
    ``gp.stats.against_sigma`` names the window between the two and ``gp.plots.sigma_sweep`` draws it; all other
    statistics work on the run as on any. ``Problem(precision="float64")`` moves the lower end far down.

    The noise of a block is the same for all sigmas up to its size (its key does not hold sigma), so that differences
    between sigmas are paired. The smoothed reference belongs to each sigma: each smooths another loss.

    Args:
        problem: The problem.
        estimators: Names with options, or instances; without a sigma of their own.
        sigmas: Standard deviations of the noise, each for every estimator and layer; by default every decade from
            1e-6 to 1.
        reference: As for :func:`probe`; by default both, which the split into noise and bias needs.
        **options: Further arguments of :func:`probe` (``copies``, ``seeds``, ``out``, ...) and of the estimators.

    Returns:
        Dataset as :func:`probe` gives it, with estimators such as "lr(sigma=0.1)"; coordinates ``sigma`` and
        ``method`` ("lr") on ``estimator``. With ``out`` the run can be resumed, opened and added to like any other: a
        second call with further sigmas computes these alone.

    Raises:
        UsageError: A sigma is no positive number or given elsewhere too, an estimator has no sigma, or
            :func:`probe` refuses.
    """
    if "sigma" in options:
        raise UsageError(
            f"sigma_sweep takes its sizes of noise as sigmas=(...), not sigma={options['sigma']!r}."
        )
    sizes = _sizes(sigmas)
    return probe(problem, _swept(estimators, sizes), reference=reference, **options)


def _sizes(given: Any) -> list[float]:
    """The sigmas in increasing order, each once."""
    if isinstance(given, Mapping):
        raise UsageError(_PER_LAYER)
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    sizes = sorted({positive("each of sigmas", value) for value in given})
    if not sizes:
        raise UsageError("sigmas is empty; give sizes of noise such as (0.001, 0.01, 0.1).")
    return sizes


def _swept(
    estimators: Sequence[str | Estimator] | str | Estimator, sizes: Sequence[float]
) -> list[str | Estimator]:
    """Every estimator at every sigma: names stay names, so that options of the run reach them."""
    if isinstance(estimators, (str, Estimator)) or not isinstance(estimators, Iterable):
        estimators = [estimators]
    swept: list[str | Estimator] = []
    for given in estimators:
        for item in spec.split(given) if isinstance(given, str) else [given]:
            _check(make(item))
            swept += [_at(item, size) for size in sizes]
    return swept


def _at(item: Any, sigma: float) -> str | Estimator:
    """A name with options, or an instance, with this sigma."""
    if not isinstance(item, str):
        changed: Estimator = dataclasses.replace(item, sigma=sigma)
        return changed
    own = spec.parse(item)
    return spec.label(own.name, {**own.options, "sigma": sigma}, own.argument)


def _check(made: Labelled) -> None:
    """Refuse an estimator without a sigma, or with one of its own."""
    field = next((f for f in dataclasses.fields(made.estimator) if f.name == "sigma"), None)
    if field is None or made.estimator.assignment(()) is None:
        raise UsageError(f"estimator {made.label!r} has no noise whose sigma could be swept; leave it out.")
    value = vars(made.estimator)["sigma"]
    if isinstance(value, Mapping):
        raise UsageError(_PER_LAYER)
    if value != field.default:
        raise UsageError(f"estimator {made.label!r} has a sigma of its own; leave it out, sigmas= gives it.")
