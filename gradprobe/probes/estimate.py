"""``estimate``: one direction, for training code."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gradprobe.core import spec
from gradprobe.core.copyplan import Plan
from gradprobe.core.errors import UsageError, whole
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.level import Level
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.sites import dtype_of
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import Given, Labelled, make
from gradprobe.estimators.bringing import own_layers
from gradprobe.estimators.keeping import check_storage
from gradprobe.probes.checks import DEFAULT_BLOCK, check_copies, check_problem, layers_of
from gradprobe.problems.problem import Problem

DEFAULT_COPIES = 100


def estimate(
    problem: Problem,
    estimator: Given = "lr",
    *,
    copies: int | None = None,
    seed: int = 0,
    block: int | None = None,
    layers: str | Sequence[str] | None = None,
    root_seed: int = 0,
    storage: str = "float32",
    **options: Any,
) -> dict[str, torch.Tensor]:
    """One direction: the mean over ``copies`` copies, the same that :func:`probe` measures.

    The same call gives the same bits: nothing is timed. What does not depend on values (layers, engine) is remembered
    from call to call; see :meth:`Problem.look <gradprobe.Problem.look>`.

    Args:
        problem: The problem; it is left exactly as it was.
        estimator: Name with options, an instance, or a plan (``gp.plan``).
        copies: Monte-Carlo copies, 100 by default. A copy whose loss is not finite counts as 0. One copy of a plan is
            a whole estimate, and 1 the default.
        seed: Which repetition; change it from step to step.
        block: Copies that share one noise key. By default 10 if ``copies`` is a multiple of it, else all.
        layers: Names, globs or class names of layers; all by default.
        root_seed: Root of all noise keys.
        storage: How noise and noisy inputs are kept until they are read; see :func:`probe`. It changes no number.
        **options: Options of the estimator, such as ``sigma=0.1``.

    Returns:
        Parameter name (of ``noise-level``, level) -> direction ``[*param]`` in its dtype. It has the sign of a
        gradient: descend against it.

    Raises:
        UsageError: Something unknown or impossible was asked for, a layer cannot be served, or no copy's loss
            was finite.

    Example:
        >>> direction = gp.estimate(problem, "lr", copies=50)
        >>> exact = gp.estimate(problem, "bp")
        >>> bool((direction["fc.weight"] * exact["fc.weight"]).sum() > 0)
        True
    """
    made = _made(estimator, options)
    usual = 1 if made.estimator.whole else DEFAULT_COPIES
    copies = whole("copies", usual if copies is None else copies)
    seed = whole("seed", seed, 0)
    root_seed = whole("root_seed", root_seed, 0)
    fits = copies % DEFAULT_BLOCK == 0
    size = whole("block", block) if block is not None else DEFAULT_BLOCK if fits else copies
    check_copies(copies, size)
    check_problem(problem)
    check_storage(storage)
    streams, blocks = Streams(root_seed, seed), range(copies // size if made.estimator.stochastic else 1)
    with untouched_globals(), problem.frozen():
        fresh = problem.look(lambda: _of_samples(made, problem))
        try:
            return _mean(made, problem, layers, [Block(i, size) for i in blocks], streams, storage)
        except UsageError:
            raise
        except Exception:
            if fresh:
                raise
        problem.refresh()  # an engine that served former values may fail on these
        return _mean(made, problem, layers, [Block(i, size) for i in blocks], streams, storage)


def _made(estimator: Given, options: Mapping[str, Any]) -> Labelled:
    """The estimator, made once of a name and options that nothing else stands behind.

    Raises:
        UsageError: It is unknown, or has its options already.
    """
    if isinstance(estimator, str) and estimator in ESTIMATORS:
        kind = ESTIMATORS.get(estimator)  # a notebook's cell may register another under the same name
        if not getattr(kind, "argument", ""):
            with suppress(TypeError):  # a sigma for each layer has no hash
                return _made_once(kind, estimator, **options)
    return _with_options(estimator, options)


@functools.lru_cache(maxsize=64, typed=True)
def _made_once(kind: Any, name: str, **options: Any) -> Labelled:
    return _with_options(name, options)


def _with_options(estimator: Given, options: Mapping[str, Any]) -> Labelled:
    if options and (isinstance(estimator, (Path, Plan)) or str(estimator).strip().endswith(".json")):
        raise UsageError(f"a plan has the options of its methods already; leave {next(iter(options))} out.")
    if options and isinstance(estimator, str):
        given = spec.parse(estimator)
        estimator = spec.label(given.name, {**given.options, **options}, given.argument)
    elif options:
        raise UsageError(f"give the options to the {type(estimator).__name__} itself, not to estimate.")
    return make(estimator)


def _of_samples(made: Labelled, problem: Problem) -> bool:
    """Whether directions depend on whose the losses are: weight noise that a batch shares meets their sum alone."""

    def compute() -> bool:
        try:
            draws = made.estimator.draws(layers_of(problem))
        except UsageError:
            return True
        return not draws or any(draw.where != "weights" or draw.share != "batch" for draw, _, _ in draws)

    return bool(problem.once(("of samples", made.label), compute))


def _mean(
    made: Labelled,
    problem: Problem,
    layers: str | Sequence[str] | None,
    blocks: Sequence[Block],
    streams: Streams,
    storage: str,
) -> dict[str, torch.Tensor]:
    """Mean direction over blocks, of a problem that is frozen; the arguments are those of :func:`estimate`."""
    chosen = own_layers(made.estimator, problem, layers_of(problem, layers))
    names = tuple(layer.name for layer in chosen)
    refused = problem.once(("refused", made.label, names), lambda: made.estimator.refusals(problem, chosen))
    if refused:
        name, why = next(iter(refused.items()))
        raise UsageError(f"{made.label} does not serve layer {name!r}: {why}; choose layers with layers=.")
    sums: dict[str, torch.Tensor] = {}
    lost, copies = 0.0, 0
    for block in blocks:
        read = made.estimator.read(problem, chosen, block, streams, storage=storage)
        lost, copies = lost + read.nonfinite, copies + block.copies
        for name, direction in read.directions[0].items():
            sums[name] = sums.get(name, 0) + direction.double()
    if lost >= copies:
        where = " in one of the layers" if made.estimator.whole else ""
        raise UsageError(
            f"no copy's loss was finite{where}; use a smaller sigma, or look at the model's outputs."
        )
    types = {name: value.dtype for name, value in problem.parameters.items()}
    types |= {p: dtype_of(problem, x.noisy) for x in chosen if isinstance(x, Level) for p in x.parameters}
    return {name: (total / len(blocks)).to(types[name]) for name, total in sums.items()}
