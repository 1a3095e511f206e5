"""``descend``: how estimators walk on a function."""

from __future__ import annotations

import json
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from gradprobe.core.errors import UsageError, one_of, positive, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.streams import seed_list
from gradprobe.core.told import Progress, told
from gradprobe.engine.memory import SHARE, free_memory
from gradprobe.estimators.base import Estimator, make_all
from gradprobe.problems.landscape import Function, find_function
from gradprobe.trajectory.assemble import path_dataset
from gradprobe.trajectory.descents import descents
from gradprobe.trajectory.request import (
    CRITERIA,
    Request,
    check_options,
    check_sources,
    common_sigma,
    find_rates,
    find_starts,
)
from gradprobe.trajectory.stepping import find_optimizer
from gradprobe.trajectory.tuning import RATES, Tuning, tune
from gradprobe.trajectory.walk import Rules

HELD = 8
"""Numbers held for each noisy coordinate of a step, about."""


@told("steps")
@untouched_globals()
def descend(
    function: str | Function | Callable[..., torch.Tensor],
    estimators: Sequence[str | Estimator] | str | Estimator = ("bp", "lr", "alr"),
    *,
    start: Sequence[float] | Sequence[Sequence[float]] | int | None = None,
    steps: int = 1000,
    lr: float | Mapping[str, float] | str = "tuned",
    optimizer: Any = "sgd",
    copies: int = 16,
    sigma: float | None = None,
    seeds: int | Sequence[int] = 20,
    step: str = "raw",
    bounds: str | None = None,
    clip: float | None = None,
    decay: float = 0.0,
    every: int = 1,
    domain: Sequence[Sequence[float]] | None = None,
    minima: Sequence[Sequence[float]] | None = None,
    rates: Sequence[float] | None = None,
    criterion: str | None = None,
    tuning_seeds: int | None = None,
    root_seed: int = 0,
    progress: Progress | bool | None = None,
) -> xr.Dataset:
    """Descend a function of a few variables with each estimator's directions (ALR paper, Fig. 6).

    The function is the loss of a one-layer network with the constant input 1, whose weights are the variables (see
    :meth:`Function.problem`), so that any estimator serves it. Each walker (a start and a seed) takes, at every step,
    the mean direction over ``copies`` fresh copies; methods with the same draw see the same noise, so comparisons of
    walkers are paired.

    Nothing is hidden: a walker whose position or loss is no longer finite is recorded as diverged and is NaN from
    then on.

    Args:
        function: A registered name (``"beale"``), a callable on tensors ``f(p)`` or ``f(x, y, ...)``, or a
            :class:`Function`.
        estimators: Names with options, or instances.
        start: A point, points ``[n, d]``, or a whole number n: the centres of n^d equal cells of the domain. By
            default the function's own; needed for a callable.
        steps: Steps of each walker.
        lr: Learning rate: one for all, {estimator: rate}, or ``"tuned"`` (default): for each method the best of
            ``rates`` by ``criterion``, on noise that the descent does not see (and, if there are several starts, from
            25 random places between them; a method without noise that has one start is tuned on its own path).
            Methods differ in the length of what they return (sign-encoded ones carry no 1/sigma), so that one rate
            for all compares step sizes, not methods.
        optimizer: ``"sgd"``, ``"adam"``, any other name of ``torch.optim`` with options (``"sgd(momentum=0.9)"``),
            or a factory ``(parameters, lr=...) -> Optimizer``.
        copies: Monte-Carlo copies in a step.
        sigma: Standard deviation of the noise of estimators given by name, in the units of the variables; their own
            (0.01) by default.
        seeds: How many repetitions, or which.
        step: ``"raw"``, or ``"normalised"``: directions are divided by their length, so that only where they point
            counts.
        bounds: ``"project"``: after each step a walker is moved to the nearest point of the domain (the paper's
            recursion, eq. 4). None: it may go anywhere.
        clip: Longest direction that is not shortened, in the units of the gradient; None for no clipping.
        decay: The rate of step k is ``lr / (1 + decay k)``. With ``decay > 0`` the sum of the rates is infinite and
            that of their squares finite, as theorem 2 asks.
        every: Record every so many steps (and the last).
        domain: Low and high end of each variable, for a function that has none, or instead of its own.
        minima: Global minima, likewise.
        rates: What ``lr="tuned"`` tries; three a decade from 1e-6 to 100 by default.
        criterion: Of tuning: ``"loss"`` (default: median of the last loss) or ``"steps"`` (mean number of steps from
            which on a walker stays at a global minimum, twice the steps for one that does not).
        tuning_seeds: Repetitions for tuning; 10 by default.
        root_seed: Root of all noise keys.
        progress: As in :func:`gradprobe.probe`; what is counted are steps of all methods, and of their tuning.

    Returns:
        The path: see :mod:`gradprobe.store.paths`. Dims (estimator, seed, step, coordinate), and ``start`` if there
        are several.

    Raises:
        UsageError: Something unknown or impossible was asked for, or the function is not finite at a start.

    Example:
        >>> path = gp.descend("beale", ["bp", "lr"], start=(1, 1), steps=50, lr=1e-3, seeds=3)
        >>> path["loss"].isel(step=[0, -1]).mean("seed").to_pandas().round(1)
        step         0    50
        estimator
        bp         14.2  4.1
        lr         14.2  4.2
    """
    found = find_function(function, _first(start), domain, minima)
    check_options(found, step, bounds, clip, decay)
    made = make_all(estimators, **common_sigma(sigma))
    label, factory = find_optimizer(optimizer)
    rules = Rules(factory, whole("steps", steps), float(decay), step, clip, bounds, whole("every", every))
    request = Request(
        found,
        find_starts(found, start),
        seed_list(seeds),
        whole("copies", copies),
        whole("root_seed", root_seed, 0),
    )
    given = find_rates(lr, made, common_sigma(sigma))
    tuning = None if given else _tuning(rates, criterion, tuning_seeds)
    if tuning is None:
        _no_tuning(rates=rates, criterion=criterion, tuning_seeds=tuning_seeds)
    _check_memory(request, rules, len(made))
    check_sources(request, made)
    assert not isinstance(progress, bool)  # @told has made a function of it
    ticks = _ticks(progress, [item.label for item in made], bool(tuning), rules.steps)
    tuned = [tune(request, item, rules, tuning, next(ticks)) for item in made] if tuning else []
    chosen = given or [rate for rate, _ in tuned]
    walked = [
        descents(request, item, [rate], rules, tick=next(ticks))
        for item, rate in zip(made, chosen, strict=True)
    ]
    attrs = {"optimizer": label, "lr_rule": "tuned" if tuned else "given"}
    ds = path_dataset(request, made, walked, rules, chosen, attrs)
    if tuning:
        ds["tuning_score"] = (("estimator", "rate"), [scores for _, scores in tuned])
        ds = ds.assign_coords(rate=list(tuning.rates))
        edges = [
            item.label
            for item, rate in zip(made, chosen, strict=True)
            if rate in (tuning.rates[0], tuning.rates[-1])
        ]
        about = {"seeds": tuning.seeds, "criterion": tuning.criterion, "steps": steps, "at_edge": edges}
        ds.attrs["tuning"] = json.dumps(about)
    return ds


def _ticks(
    progress: Progress | None, labels: Sequence[str], tuned: bool, steps: int
) -> Iterator[Callable[[float], None]]:
    """For each part of the work a function of the share of it that is done, which tells of the steps of all parts."""
    parts = [f"tuning {label}" for label in labels] * tuned + list(labels)

    def tick(part: int) -> Callable[[float], None]:
        return lambda share: (
            None
            if progress is None
            else progress(round((part + share) * steps), len(parts) * steps, parts[part])
        )

    return map(tick, range(len(parts)))


def _first(start: Any) -> Any:
    """One point of what was given, to learn the number of variables from; None for a grid."""
    if isinstance(start, numbers.Integral):
        return None
    try:
        return start[0] if np.ndim(start[0]) else start
    except (TypeError, IndexError):
        return start


def _tuning(rates: Sequence[float] | None, criterion: str | None, seeds: int | None) -> Tuning:
    criterion = "loss" if criterion is None else criterion
    one_of("criterion", criterion, CRITERIA)
    if rates is not None and (isinstance(rates, str) or not isinstance(rates, Iterable)):
        raise UsageError(f"rates must be numbers such as [1e-3, 1e-2], not {rates!r}.")
    grid = RATES if rates is None else tuple(sorted({positive("each of the rates", r) for r in rates}))
    if not grid:
        raise UsageError("rates is empty; give the learning rates to try, or leave it out.")
    return Tuning(grid, 10 if seeds is None else whole("tuning_seeds", seeds), criterion)


def _no_tuning(**given: Any) -> None:
    """Refuse options of tuning where rates are given.

    Raises:
        UsageError: There is one.
    """
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} is an option of lr='tuned'; give lr='tuned', or leave it out.")


def _check_memory(request: Request, rules: Rules, estimators: int) -> None:
    """Refuse what could not be held.

    Raises:
        UsageError: The recorded numbers take more than the share of the free memory.
    """
    free = SHARE * free_memory(torch.device("cpu"))
    if HELD * 8 * request.copies * request.function.dims > free:
        raise UsageError(f"copies={request.copies:,} of a single walker do not fit into memory; give fewer.")
    walkers = estimators * len(request.starts) * len(request.seeds)
    recorded = rules.steps // rules.every + 2
    need = 2 * 8 * walkers * recorded * (3 * request.function.dims + 4)
    if need > free:
        raise UsageError(
            f"{walkers:,} walkers at {recorded:,} steps take {need / 2**30:.1f} GiB; record fewer "
            f"of them with every={rules.every * 10}."
        )
