"""What a request must satisfy before anything is written; each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradprobe.core.errors import UsageError, one_of, whole
from gradprobe.core.layer import Layer
from gradprobe.engine.engines import Engine
from gradprobe.engine.memory import room_for
from gradprobe.engine.preflight import ENGINES, choose_engine
from gradprobe.estimators.apart import apart_refusal
from gradprobe.estimators.base import Labelled
from gradprobe.estimators.pulling_apart import check_apart
from gradprobe.layers.find import find_layers
from gradprobe.probes.plan import Plan, Task
from gradprobe.probes.references import reference_block, room
from gradprobe.probes.settings import Settings
from gradprobe.problems.problem import Problem
from gradprobe.store.schema import REFERENCES

DEFAULT_BLOCK = 10
DEFAULT_COPIES = 1000
WHOLE_COPIES = 4
"""Copies of a probe of estimators of which one copy is a whole estimate: blocks of one, enough for the law."""


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


def unused_layers(problem: Problem) -> list[str]:
    """Names of layers that never run."""
    return list(problem.once("layers", lambda: find_layers(problem)).unused)


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


def sizes(made: Sequence[Labelled], copies: int | None, block: int | None) -> tuple[int, int]:
    """Copies and block of a probe, the usual ones where none were given.

    Raises:
        UsageError: They are no positive whole numbers that fit together, or copies of ordinary methods and of plans
            are to be counted alike without saying how many.
    """
    noisy = [item for item in made if item.estimator.stochastic]
    whole_ones = [item.label for item in noisy if item.estimator.whole]
    if copies is None and whole_ones and len(whole_ones) < len(noisy):
        raise UsageError(
            f"one copy of {whole_ones[0]} is a whole estimate, one of {_other(noisy)} is not; probe them apart, or "
            "give copies= for both."
        )
    if whole_ones and len(whole_ones) == len(noisy):
        copies, block = WHOLE_COPIES if copies is None else copies, 1 if block is None else block
    copies = whole("copies", DEFAULT_COPIES if copies is None else copies)
    block = whole("block", DEFAULT_BLOCK if block is None else block)
    check_copies(copies, block)
    return copies, block


def _other(made: Sequence[Labelled]) -> str:
    return next(item.label for item in made if not item.estimator.whole)


def references(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of the references, backprop first.

    Raises:
        UsageError: One is not known.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable):
        raise UsageError(f"reference must be one or more of {', '.join(REFERENCES)}, not {given!r}.")
    names = list(names)
    for name in names:
        one_of("reference", name, REFERENCES)
    return tuple(name for name in REFERENCES if name == "bp" or name in names)


def check_plan(problem: Problem, plan: Plan, settings: Settings, layers: Sequence[Layer]) -> None:
    """Refuse before anything is written what could not run."""
    if settings.engine not in ENGINES:
        one_of("engine", str(settings.engine).partition(" ")[0], ENGINES)
        Engine.parse(settings.engine)
    for view in plan.views:
        if not view.sources:
            name, why = next(iter(view.refused.items()))
            raise UsageError(f"{view.label} serves none of the layers; for {name!r}: {why}.")
    for task in plan.tasks:
        if task.drawn:
            _check_drawn(problem, task, settings, [layer.name for layer in layers])
        if task.draw is not None:
            task.draw.check_block(settings.block)
            task.draw.check_sigma([layer.name for layer in layers])
            for layer in task.noisy:
                task.draw.sigma_of(layer.name)
            for readout in task.readouts.values():
                readout.check_block(settings.block, task.draw.antithetic)
            if task.smooths and "smoothed" in settings.references:
                copies = settings.copies_behind(task.key.group)
                reference_block(copies, settings.block, task.draw.antithetic)
            if task.extras(settings.per_sample):
                _check_apart(problem, task, settings.block)
            if settings.memory is not None:
                room(problem, task, settings)
            if settings.engine not in ("auto", "loop"):
                choose_engine(problem, task.draw, task.noisy, settings.engine)


def _check_drawn(problem: Problem, task: Task, settings: Settings, names: list[str]) -> None:
    """Refuse a task of an estimator whose draws could not run."""
    assert task.estimator is not None
    for draw, unit, _ in task.drawn:
        draw.check_sigma(names)
        if settings.memory is not None:
            room_for(problem, draw, unit, 1, settings.memory, settings.sharers)
    task.estimator.check_block(task.layers, settings.block)


def _check_apart(problem: Problem, task: Task, block: int) -> None:
    """Refuse a task whose samples cannot be told apart."""
    assert task.draw is not None
    for layer in task.layers:
        why = apart_refusal(problem, layer, task.draw, block, list(task.readouts.values()))
        if why:
            raise UsageError(
                f"per_sample=True cannot tell the samples of layer {layer.name!r} apart: {why}; leave the layer out "
                "with layers=, or probe without per_sample."
            )
        if task.draw.where == "activations":
            for encode in {readout.encodes_input for readout in task.readouts.values()}:
                check_apart(problem, layer, encode)
