"""``doctor``: what can be trusted of a problem; and the quick look before every probe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradprobe.checkup import CHECKS
from gradprobe.checkup.case import Case, Unit
from gradprobe.checkup.diagnosis import Diagnosis
from gradprobe.checkup.examine import examine
from gradprobe.checkup.finding import REFUSED, Finding, named
from gradprobe.checkup.mode import random_by_name
from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw, Sigma
from gradprobe.estimators._options import check_options
from gradprobe.estimators.base import Given, Labelled, make_all
from gradprobe.estimators.bp import BP
from gradprobe.estimators.bringing import own_layers
from gradprobe.probes.checks import check_problem, layers_of, unused_layers
from gradprobe.problems.problem import Problem
from gradprobe.store.looks import Looks

Asked = dict[str, set[str]]
"""Layer -> where noise is asked for."""

_OWN = {"estimators", "sigma", "layers", "quick"}
_OF_PROBLEM = set(inspect.signature(Problem).parameters) - {"module"}


def doctor(
    problem: Problem | nn.Module,
    estimators: Sequence[Given] | Given | None = None,
    *,
    sigma: Sigma | None = None,
    layers: str | Sequence[str] | None = None,
    quick: bool = False,
    **options: Any,
) -> Diagnosis:
    """Look at a problem for what makes estimates silently wrong, and say what can be trusted.

    Args:
        problem: The problem, or a module; then ``options`` are those of :class:`Problem` (``batch``, ``loss``,
            ``mode``, ...), and a problem that cannot be made is a finding in place of an error.
        estimators: Names with options, instances, or plans: whose noise to look at. By default noise on the
            activations and on the weights, one layer at a time.
        sigma: Standard deviation of the noise; by default 0.01, or what the estimators say.
        layers: Names, globs or class names of layers; all by default.
        quick: Only what is looked at before every probe.
        **options: Further options of the estimators, or of the problem.

    Returns:
        Findings; ``print`` shows them as tables. The problem is left exactly as it was.

    Raises:
        UsageError: An estimator, a layer or an option is not known.

    Example:
        >>> found = gp.doctor(problem, quick=True)
        >>> found.ok
        True
        >>> print(found.findings[0].sentence)
        two forwards of the same batch give the same bits.
    """
    of_problem = {k: v for k, v in options.items() if k in _OF_PROBLEM}
    if isinstance(problem, nn.Module):
        made = _made(problem, of_problem)
        if isinstance(made, Diagnosis):
            return made
        problem = made
    elif of_problem:
        raise UsageError(f"{named(sorted(of_problem))} belongs to a module; this problem has it already.")
    check_problem(problem)
    rest = {k: v for k, v in options.items() if k not in _OF_PROBLEM}
    with untouched_globals(), problem.frozen():
        problem.refresh()
        chosen = layers_of(problem, layers)
        units, asked = _wanted(problem, chosen, estimators, sigma, rest)
        every = layers_of(problem)
        case = Case(problem, chosen, every, unused_layers(problem), units, asked, _gradient(problem), quick)
        return examine(case)


def preflight(
    problem: Problem,
    made: Sequence[Labelled],
    chosen: Sequence[Layer],
    gradient: Mapping[str, torch.Tensor],
    memory: int | None = None,
) -> dict[str, Any]:
    """The quick look before a probe.

    Args:
        problem: The problem, frozen.
        made: The estimators.
        chosen: The layers that are probed.
        gradient: Backprop's gradient by parameter.
        memory: Bytes that the look may use; None for half of what is free.

    Returns:
        Facts of the run. "doctor": warnings, as plain dictionaries; ``noted`` says whether a report has it among its
        other notes. "doctor_table": all findings, as :mod:`gradprobe.store.looks` describes them.

    Raises:
        UsageError: A check refuses.
    """
    units, asked = _drawn(problem, chosen, made)
    every, unused = layers_of(problem), unused_layers(problem)
    case = Case(problem, chosen, every, unused, units, asked, gradient, quick=True, memory=memory)
    diagnosis = examine(case)
    for finding in diagnosis.refused:
        raise UsageError(finding.sentence)
    warned = [
        f.to_dict() | {"noted": bool(CHECKS.entry(f.check).meta.get("noted"))} for f in diagnosis.warnings
    ]
    return {"doctor": warned, "doctor_table": _looks(diagnosis)}


def _looks(diagnosis: Diagnosis) -> Looks:
    """All findings: of the problem in words, of layers as cells alone."""
    layers: dict[str, dict[str, str]] = {}
    for f in diagnosis.findings:
        if f.layer is not None:
            layers.setdefault(f.layer, {})[f.check] = f.cell
    said = [
        {"check": f.check, "status": f.status, "sentence": f.sentence}
        for f in diagnosis.findings
        if f.layer is None
    ]
    return {"problem": said, "layers": layers}


def _made(module: nn.Module, options: dict[str, Any]) -> Problem | Diagnosis:
    """The problem of a module, or why there is none."""
    if "batch" not in options:
        raise UsageError("a module needs batch=(inputs, target) to be a problem.")
    try:
        return Problem(module, **options)
    except UsageError as error:
        left = [n for n, m in module.named_modules() if random_by_name(m) and m.training]
        on = f"with {named(left)} left on, " if left and options.get("mode") == "as-is" else ""
        finding = Finding("problem", None, REFUSED, f"{on}{error}", {"left_on": left if on else []})
        return Diagnosis(options.get("name") or type(module).__name__, (finding,))


def _wanted(
    problem: Problem,
    layers: Sequence[Layer],
    estimators: Sequence[Given] | Given | None,
    sigma: Sigma | None,
    options: Mapping[str, Any],
) -> tuple[list[Unit], Asked]:
    """What estimators draw, or one draw on activations and one on weights; see :func:`_drawn`."""
    if estimators is None:
        if options:
            raise unknown("option", next(iter(options)), sorted(_OF_PROBLEM | _OWN))
        size = 0.01 if sigma is None else sigma
        draws = [Draw("activations", sigma=size), Draw("weights", share="batch", sigma=size)]
        for draw in draws:
            draw.check_sigma([x.name for x in layers_of(problem)])
        units: list[Unit] = [
            (d, (x,)) for d in draws for x in layers if d.where == "weights" or x.activations
        ]
        return units, {x.name: {d.where for d in draws} for x in layers}
    common = dict(options) if sigma is None else {"sigma": sigma, **options}
    made = make_all(estimators, **common)
    check_options(made, options, _OF_PROBLEM | _OWN)
    return _drawn(problem, layers, made)


def _drawn(problem: Problem, layers: Sequence[Layer], made: Sequence[Labelled]) -> tuple[list[Unit], Asked]:
    """The draws of estimators with the layers that are noisy together, each once.

    Returns:
        The units, and for each layer where noise is asked for, whether the layer can be served or not.
    """
    units: dict[tuple[str, ...], Unit] = {}
    asked: Asked = {}
    for item in made:
        own = own_layers(item.estimator, problem, layers)
        for draw, unit, _ in item.estimator.draws(own):
            for layer in unit if not draw.derived else ():  # nothing of a derivative is lost in rounding
                asked.setdefault(layer.name, set()).add(draw.where)
        refused = item.estimator.refusals(problem, own)
        served = [x for x in own if x.name not in refused]
        for draw, unit, _ in item.estimator.draws(served):
            if draw.derived:
                continue
            draw.check_sigma([x.name for x in layers_of(problem)])
            units[str(draw), *(x.name for x in unit)] = draw, tuple(unit)
    return list(units.values()), asked


def _gradient(problem: Problem) -> dict[str, torch.Tensor]:
    """Backprop's gradient, finite or not."""
    return dict(BP().directions(problem, layers_of(problem), Block(0, 1), Streams(0, 0)))
