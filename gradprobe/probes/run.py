"""``probe``: quality of estimates, for every layer, over copies and seeds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.layer import Layer
from gradprobe.core.streams import NOISE_VERSION, Block, Streams
from gradprobe.engine.draw import one_of
from gradprobe.engine.preflight import ENGINES
from gradprobe.estimators.base import Estimator, Labelled, make_all
from gradprobe.estimators.bp import BP
from gradprobe.layers.find import Found, find_layers
from gradprobe.probes.plan import OWN, Plan, Task, make_plan
from gradprobe.probes.unit import Settings, compute
from gradprobe.problems.problem import Problem
from gradprobe.store.run import RunInfo, RunStore
from gradprobe.store.schema import REFERENCES

DEFAULT_BLOCK = 10
Progress = Callable[[int, int, str], None]


def probe(
    problem: Problem,
    estimators: Sequence[str | Estimator] | str | Estimator = ("lr", "alr", "es", "aes"),
    *,
    copies: int = 1000,
    seeds: int | Sequence[int] = 5,
    block: int = DEFAULT_BLOCK,
    layers: str | Sequence[str] | None = None,
    reference: str | Sequence[str] = "bp",
    reference_copies: int = 64,
    root_seed: int = 0,
    engine: str = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> xr.Dataset:
    """Probe estimators on a problem and store the moments that every statistic needs.

    Args:
        problem: The problem; it is left exactly as it was.
        estimators: Names with options, or instances.
        copies: Monte-Carlo copies of each estimate; results hold every multiple of ``block`` up to it.
        seeds: Independent repetitions: how many, or which. Five is the best use of a fixed budget for telling
            noise from bias; intervals need at least three.
        block: Copies that share one noise key; the unit of noise and of storage. ``copies`` is a multiple.
        layers: Names, globs or class names of layers; all by default.
        reference: What to hold estimates against besides ``"bp"``: ``"smoothed"``, the backprop gradient
            averaged over the draw's noise.
        reference_copies: Copies behind a smoothed reference, for each seed.
        root_seed: Root of all noise keys.
        engine: ``"auto"``, ``"loop"`` or ``"tile"``.
        out: Run directory; one that holds a run of the same identity is added to. In memory by default.
        progress: Called with (copies done, copies in all, what is running).
        **options: Options for every estimator that has them, such as ``sigma=0.01``.

    Returns:
        Dataset as described in :mod:`gradprobe.store.schema`.

    Raises:
        UsageError: Something unknown or impossible was asked for; nothing has been written then.
    """
    made = make_all(estimators, **options)
    _check_options(made, options)
    check_copies(copies, block)
    settings = Settings(block, copies, root_seed, _references(reference), reference_copies, engine)
    _check_reference_copies(settings)
    wanted = _seeds(seeds)
    with untouched_globals(), problem.frozen():
        found = layers_of(problem)
        chosen = found.select(layers)
        if not chosen:
            raise UsageError(
                "the model has no layer that runs and owns parameters; there is nothing to probe."
            )
        gradient = _gradient(problem, found.layers)
        plan = make_plan(problem, chosen, made, wanted)
        _check_plan(plan, settings)
        store = RunStore(out)
        store.begin(_info(problem, found, chosen, gradient, plan, settings, wanted, layers))
        _compute_all(problem, plan, gradient, settings, store, progress)
    return store.dataset()


def layers_of(problem: Problem) -> Found:
    """The layers of a problem, found once."""
    return problem.once("layers", lambda: find_layers(problem))


def check_copies(copies: int, block: int) -> None:
    """Refuse numbers of copies that do not fill blocks.

    Raises:
        UsageError: Not positive whole numbers, or copies is no multiple of block.
    """
    for name, value in (("copies", copies), ("block", block)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a positive whole number, not {value!r}.")
    if copies % block:
        lower = copies - copies % block
        near = f"{lower} or {lower + block}" if lower else str(block)
        divisor = max(d for d in range(1, min(copies, 16) + 1) if copies % d == 0)
        raise UsageError(
            f"copies={copies} is not a multiple of the block of {block}; use {near} copies, or block={divisor}."
        )


def _check_options(made: Sequence[Labelled], options: Mapping[str, Any]) -> None:
    for key in options:
        known = {name for item in made for name in vars(item.estimator)}
        if key not in known:
            raise unknown("option", key, sorted(known | _OWN_OPTIONS))


_OWN_OPTIONS = set(inspect.signature(probe).parameters) - {"problem", "options"}


def _check_reference_copies(settings: Settings) -> None:
    if "smoothed" in settings.references and settings.reference_copies < 4:
        raise UsageError(
            f"reference_copies={settings.reference_copies} is too few to tell the smoothed reference from its "
            "own noise; use at least 4."
        )


def _references(given: str | Sequence[str]) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in REFERENCES:
            raise unknown("reference", name, REFERENCES)
    return tuple(name for name in REFERENCES if name == "bp" or name in names)


def _seeds(given: int | Sequence[int]) -> list[int]:
    wanted = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if isinstance(wanted, (bool, str)) or not wanted or any(not isinstance(s, int) or s < 0 for s in wanted):
        raise UsageError(
            f"seeds must be a positive number of seeds or a list of them (0, 1, ...), not {given!r}."
        )
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"seeds {list(wanted)} holds a seed twice; each seed is one repetition.")
    return list(wanted)


def _gradient(problem: Problem, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    gradient = BP().directions(problem, layers, Block(0, 1), Streams(0, 0))
    for layer in layers:
        if not all(bool(gradient[p].isfinite().all()) for p in layer.parameters):
            raise UsageError(
                f"the backprop gradient of layer {layer.name!r} is not finite, so there is nothing to compare "
                "with; check the checkpoint and the batch."
            )
    return gradient


def _check_plan(plan: Plan, settings: Settings) -> None:
    """Refuse before anything is written what could not run."""
    one_of("engine", settings.engine, ENGINES)
    for view in plan.views:
        if not view.sources:
            name, why = next(iter(view.refused.items()))
            raise UsageError(f"{view.label} serves none of the layers; for {name!r}: {why}.")
    for task in plan.tasks:
        if task.draw is not None:
            task.draw.check_block(settings.block)
            for layer in task.layers:
                task.draw.sigma_of(layer.name)
            for readout in task.readouts.values():
                readout.check_block(settings.block, task.draw.antithetic)


def _info(
    problem: Problem,
    found: Found,
    chosen: Sequence[Layer],
    gradient: Mapping[str, torch.Tensor],
    plan: Plan,
    settings: Settings,
    seeds: list[int],
    layers: str | Sequence[str] | None,
) -> RunInfo:
    identity = problem.fingerprints() | {
        "block": settings.block,
        "root_seed": settings.root_seed,
        "noise_version": NOISE_VERSION,
    }
    configuration = dict(problem.facts.get("source", {})) | {
        "estimators": [view.label for view in plan.views],
        "copies": settings.copies,
        "seeds": seeds,
        "block": settings.block,
        "layers": layers if layers is None or isinstance(layers, str) else list(layers),
        "reference": list(settings.references),
        "reference_copies": settings.reference_copies,
        "root_seed": settings.root_seed,
        "engine": settings.engine,
    }
    squares = {name: float((g.double() ** 2).sum()) for name, g in gradient.items()}
    facts = {k: v for k, v in problem.facts.items() if k != "source"} | {
        "problem": problem.name,
        "loss_per": problem.loss_per,
        "batch_size": problem.batch_size,
        "unused_layers": list(found.unused),
        "gradient_sqnorm": squares,
        "total_reference_sqnorm": sum(squares.values()),
    }
    names = [layer.name for layer in chosen]
    return RunInfo(
        identity,
        configuration,
        list(found.layers),
        names,
        plan.views,
        seeds,
        list(settings.references),
        facts,
    )


def _compute_all(
    problem: Problem,
    plan: Plan,
    gradient: Mapping[str, torch.Tensor],
    settings: Settings,
    store: RunStore,
    progress: Progress | None,
) -> None:
    todo = [left for task in plan.tasks if (left := _missing(task, settings, store)) is not None]
    total, done = sum(_copies(task, settings) for task in todo), 0
    for task in todo:

        def tick(copies: int, label: str = str(task.key)) -> None:
            nonlocal done
            done += copies
            if progress is not None:
                progress(done, total, label)

        store.add(compute(problem, task, gradient, settings, tick))


def _copies(task: Task, settings: Settings) -> int:
    fixed = task.estimator is not None and not task.estimator.stochastic
    return settings.block if fixed else settings.copies


def _missing(task: Task, settings: Settings, store: RunStore) -> Task | None:
    """What of a task is not stored yet."""
    names = list(task.readouts) or [OWN]
    references = settings.references if task.draw is not None else ("bp",)
    done = store.done(task.key, names, _copies(task, settings), references)
    if set(names) <= done:
        return None
    return replace(task, readouts={k: v for k, v in task.readouts.items() if k not in done})
