"""``probe``: quality of estimates, for every layer, over copies and seeds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from gradprobe.core.errors import UsageError, one_of, unknown, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.layer import Layer
from gradprobe.core.streams import NOISE_VERSION, Block, Streams
from gradprobe.engine.preflight import ENGINES, choose_engine
from gradprobe.estimators.base import Estimator, Labelled, make_all
from gradprobe.estimators.bp import BP
from gradprobe.layers.find import find_layers
from gradprobe.probes.plan import OWN, Plan, Task, make_plan
from gradprobe.probes.unit import Settings, compute, reference_block
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
    check_problem(problem)
    made = make_all(estimators, **options)
    _check_options(made, options)
    copies, block, root_seed = (
        whole("copies", copies),
        whole("block", block),
        whole("root_seed", root_seed, 0),
    )
    check_copies(copies, block)
    reference_copies = whole("reference_copies", reference_copies, 4)
    settings = Settings(block, copies, root_seed, _references(reference), reference_copies, engine)
    wanted = _seeds(seeds)
    with untouched_globals(), problem.frozen():
        problem.refresh()
        chosen = layers_of(problem, layers)
        found = layers_of(problem)
        gradient = _gradient(problem, found)
        plan = make_plan(problem, chosen, made, wanted)
        _check_plan(problem, plan, settings, found)
        store = RunStore(out)
        unused = problem.once("layers", lambda: find_layers(problem)).unused
        info = _info(problem, (found, chosen, unused), gradient, plan, settings, wanted, layers)
        joined = store.begin(info)
        settings = replace(settings, references=tuple(joined.references))
        _compute_all(problem, plan, gradient, settings, store, progress)
    return store.dataset()


def check_problem(problem: Problem) -> None:
    """Refuse what is no problem.

    Raises:
        UsageError: It is not a :class:`Problem`.
    """
    if not isinstance(problem, Problem):
        kind = type(problem).__name__
        raise UsageError(f"this needs a gradprobe.Problem(module, batch=(x, y), loss=...), not a {kind}.")


def layers_of(problem: Problem, patterns: str | Sequence[str] | None = None) -> list[Layer]:
    """The layers of a problem, found once after each refresh.

    Args:
        problem: The problem.
        patterns: Which of them; all by default.

    Raises:
        UsageError: There is none.
    """
    if patterns is not None and (not isinstance(patterns, Iterable) or not list(patterns)):
        raise UsageError(f"layers must be names, globs or class names, not {patterns!r}.")
    chosen = problem.once("layers", lambda: find_layers(problem)).select(patterns)
    if not chosen:
        raise UsageError("the model has no layer that runs and owns parameters; there is nothing to probe.")
    return chosen


def check_copies(copies: int, block: int) -> None:
    """Refuse numbers of copies that do not fill blocks.

    Raises:
        UsageError: Copies is no multiple of block.
    """
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


def _references(given: str | Sequence[str]) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable):
        raise UsageError(f"reference must be 'bp', 'smoothed' or both, not {given!r}.")
    names = list(names)
    for name in names:
        one_of("reference", name, REFERENCES)
    return tuple(name for name in REFERENCES if name == "bp" or name in names)


def _seeds(given: int | Sequence[int]) -> list[int]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        wanted = [whole("each of the seeds", seed, 0) for seed in given]
    else:
        wanted = list(range(whole("seeds", given)))
    if not wanted:
        raise UsageError("no seeds given; give their number, or a list of them.")
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"seeds {wanted} holds a seed twice; each seed is one repetition.")
    return wanted


def _gradient(problem: Problem, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    gradient = BP().directions(problem, layers, Block(0, 1), Streams(0, 0))
    for layer in layers:
        if not all(bool(gradient[p].isfinite().all()) for p in layer.parameters):
            raise UsageError(
                f"the backprop gradient of layer {layer.name!r} is not finite, so there is nothing to compare "
                "with; check the checkpoint and the batch."
            )
    return gradient


def _check_plan(problem: Problem, plan: Plan, settings: Settings, layers: Sequence[Layer]) -> None:
    """Refuse before anything is written what could not run."""
    one_of("engine", settings.engine, ENGINES)
    for view in plan.views:
        if not view.sources:
            name, why = next(iter(view.refused.items()))
            raise UsageError(f"{view.label} serves none of the layers; for {name!r}: {why}.")
    for task in plan.tasks:
        if task.draw is not None:
            task.draw.check_block(settings.block)
            task.draw.check_sigma([layer.name for layer in layers])
            for layer in task.layers:
                task.draw.sigma_of(layer.name)
            for readout in task.readouts.values():
                readout.check_block(settings.block, task.draw.antithetic)
            if "smoothed" in settings.references:
                reference_block(settings, task.draw.antithetic)
            if settings.engine == "tile":
                choose_engine(problem, task.draw, task.layers, settings.engine)


def _info(
    problem: Problem,
    layers_found: tuple[Sequence[Layer], Sequence[Layer], Sequence[str]],
    gradient: Mapping[str, torch.Tensor],
    plan: Plan,
    settings: Settings,
    seeds: list[int],
    layers: str | Sequence[str] | None,
) -> RunInfo:
    found, chosen, unused = layers_found
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
        "unused_layers": list(unused),
        "clean_loss": float(problem.total(problem.clean_losses())),
        "gradient_sqnorm": squares,
        "total_reference_sqnorm": sum(squares.values()),
    }
    names = [layer.name for layer in chosen]
    return RunInfo(
        identity,
        configuration,
        list(found),
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
