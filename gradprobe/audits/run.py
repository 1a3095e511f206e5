"""``audit``: is somebody's gradient code right, and what is it worth?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from gradprobe.audits.audited import Audited
from gradprobe.audits.bench import Bench, Called, Function
from gradprobe.audits.judge import Case, Said, judge_direction, judge_scale
from gradprobe.audits.judge_calls import judge_names, judge_noise, judge_seeds, judge_traces
from gradprobe.audits.measured import measure
from gradprobe.audits.others import along_smoothed, others, swapped
from gradprobe.audits.request import Told, problem_of
from gradprobe.audits.result import Audit, spread
from gradprobe.audits.scale import known_factors
from gradprobe.audits.seen import Seen, look, look_again
from gradprobe.audits.smoothed import smoothed_parts
from gradprobe.checkup.finding import named
from gradprobe.core.errors import UsageError, described
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.layer import Layer
from gradprobe.core.told import Progress
from gradprobe.probes.checks import layers_of
from gradprobe.probes.request import backprop
from gradprobe.probes.run import probe
from gradprobe.problems.problem import Problem


def audit(
    function: Function,
    problem: Problem | nn.Module,
    *,
    sigma: float | None = None,
    samples: int | None = None,
    where: str = "weights",
    target: str = "gradient",
    repeats: int = 10,
    seeds: int = 10,
    layers: str | Sequence[str] | None = None,
    root_seed: int = 0,
    name: str | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> Audit:
    """Audit code that gives gradients: its direction, its scale, its noise, its seeds, and what it leaves behind.

    The function is called ``repeats * seeds`` times, and a few times more, on a copy of the module that is put back
    before every call, with the global generators of torch, NumPy and Python seeded anew each time; neither module nor
    generators of the user's change. Its mean is held against backprop by the moments and the statistics of
    :func:`~gradprobe.probe`.

    Args:
        function: ``f(module, batch)``, batch = (inputs, target), returns {parameter name: direction} (also with
            ``module.`` before the names), directions in the order of the parameters, one vector of all, or None and
            leaves them in ``.grad``. It computes its own loss: the one that the problem has, with the mean over the
            batch if that is what the problem's weights say.
        problem: The problem, or a module; then ``options`` are those of :class:`Problem` (``batch``, ``loss``, ...).
        sigma: Standard deviation of its noise, if it has one. Then the gradient of the loss smoothed by it is right
            too, and a wrong length is compared with powers of sigma.
        samples: Evaluations (or pairs) in one call, N, for names of wrong lengths alone.
        where: What the noise of ``sigma`` is on: ``"weights"`` (default) or ``"activations"``, of all layers at once.
        target: ``"gradient"`` (default), or ``"surrogate"`` for a method that means to follow a field of its own
            (feedback alignment): direction and scale are then told and not held against it.
        repeats: Calls for each seed. By default a hundred in all; with one Gaussian sample each they tell the scale
            to 0.4, enough to tell 1 from 2 and from 1/2, and calls with more samples tell it better.
        seeds: Independent repetitions; at least three. The direction is judged by products of different seeds, so
            that ten of them find twice as many wrong ones as five do with as many calls.
        layers: Names, globs or class names of the layers to judge; all by default.
        root_seed: Root of all seeds.
        name: What to call the function; its own name by default.
        progress: As in :func:`~gradprobe.probe`.
        **options: Options of the problem, where a module is given.

    Returns:
        ``.ok`` (direction, scale and seeds are right), ``.problems``, ``.unshown`` (what more calls could show),
            ``.warnings`` (noise, traces), ``.findings``, and the numbers in ``.evidence``. Tests of length and
            direction have a false-alarm rate of at most 0.5 % each, for the model and over its layers: 2 % in all,
            for calls whose mean is near normal.

    Raises:
        UsageError: The function fails or returns what is no direction, or something unknown was asked for.

    Example:
        >>> def summed(module, batch):
        ...     loss = torch.nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="sum")
        ...     loss.backward()
        >>> found = gp.audit(summed, problem)
        >>> found.ok
        False
        >>> print(found.problems[0])
        its length along the gradient is 8 times the gradient's, which looks like B = 8.
    """
    if not callable(function):
        raise UsageError(f"an audit needs a function f(module, batch), not {described(function)}.")
    told = Told.of(sigma, samples, where, target, repeats, seeds, root_seed)
    problem = problem_of(problem, options, audit)
    called = str(name or getattr(function, "__name__", type(function).__name__))
    with untouched_globals(), problem.frozen():
        problem.refresh()
        chosen = layers_of(problem, layers)
        bench = Bench(function, problem)
        seen = look(bench, told.root_seed)
        if bad := _nonfinite(seen.first):
            said = Said([f"it returns NaN or infinite values for {named(bad)}, and was not measured."])
            return _result(called, problem, said, {"calls": 0, "parts": {}})
        chosen = _not_frozen(chosen, bench, seen.first)
        every = _not_frozen(layers_of(problem), bench, seen.first)
        return _measured(called, problem, bench, seen, (chosen, every), told, progress)


def _not_frozen(layers: Sequence[Layer], bench: Bench, called: Called) -> list[Layer]:
    """Layers without those of which the function rightly returns nothing: a parameter of them needs no gradient.

    Raises:
        UsageError: None is left.
    """
    needs = {n: p.requires_grad for n, p in bench.module.named_parameters()}
    left = [x for x in layers if all(needs[p] or p in called.directions for p in x.parameters)]
    if not left:
        raise UsageError(
            "all parameters of these layers are frozen (requires_grad=False) and nothing is returned for them."
        )
    return left


def _measured(
    name: str,
    problem: Problem,
    bench: Bench,
    seen: Seen,
    asked: tuple[Sequence[Layer], Sequence[Layer]],
    told: Told,
    progress: Progress | bool | None,
) -> Audit:
    """Call it as often as asked, and judge; ``asked`` are the layers to judge, and all of them."""
    layers, every = asked
    gradient = backprop(problem, layers)
    known = others(gradient)
    smooth = (
        {} if told.sigma is None else smoothed_parts(problem, layers, told.sigma, told.where, told.root_seed)
    )
    audited = Audited(bench, not seen.deterministic, known.directions | smooth)
    ds = _probed(problem, audited, layers, told, progress)
    look_again(bench, told.root_seed, seen)
    exact = seen.deterministic
    parts = measure(ds, exact)
    if not parts:
        raise UsageError(
            "the gradient of these layers is zero, so there is nothing to hold the function against."
        )
    dead = _dead(ds, gradient)
    case = Case(
        parts,
        along_smoothed(audited, ds, layers, exact) if smooth else {},
        known_factors(problem.samples, told.sigma, told.samples),
        [x.name for x in layers if set(dead).issuperset(x.parameters)],
        swapped(audited, known, gradient, layers, parts),
        exact,
        told.target == "surrogate",
        told.sigma is not None,
    )
    beyond = 1.0 if len(every) == len(layers) else _square(backprop(problem, every)) / _square(gradient)
    said, ratio = _judged(case, audited, seen, gradient, dead, beyond)
    return _result(name, problem, said, _evidence(case, audited, seen, told, ratio))


def _probed(
    problem: Problem,
    audited: Audited,
    layers: Sequence[Layer],
    told: Told,
    progress: Progress | bool | None,
) -> xr.Dataset:
    """Moments of all calls, one call a block."""
    return probe(
        problem,
        [audited],
        copies=told.repeats,
        block=1,
        seeds=told.seeds,
        layers=[x.name for x in layers],
        root_seed=told.root_seed,
        progress=progress,
    )


def _evidence(
    case: Case, audited: Audited, seen: Seen, told: Told, ratio: list[float] | None
) -> dict[str, Any]:
    """The numbers behind the sentences."""
    return {
        "calls": len(audited.calls),
        "seeds": told.seeds,
        "passes": seen.first.passes,
        "seconds": float(np.median([c.seconds for c in audited.calls])),
        "generators": list(seen.first.drew),
        "deterministic": case.exact,
        "repeats": seen.repeats,
        "nonfinite": audited.lost,
        "noise_ratio": ratio,
        "parts": {x.name: x.to_dict() for x in case.parts},
        "smoothed": {k: {"gain": list(g), "most": m} for k, (g, m) in case.smoothed.items()},
    }


def _judged(
    case: Case,
    audited: Audited,
    seen: Seen,
    gradient: Mapping[str, torch.Tensor],
    dead: Sequence[str],
    beyond: float,
) -> tuple[Said, list[float] | None]:
    """All sentences, and the ratio of the noise to that of antithetic ES."""
    model, of_mean, said = case.parts[0], Said(), Said()
    judge_direction(case, of_mean)
    judge_scale(case, of_mean)
    if audited.lost:
        said.problems.append(f"{audited.lost} of {len(audited.calls)} calls returned NaN or infinite values.")
    judge_names(seen.first, list(gradient), dead, said)
    right = not (of_mean.problems or of_mean.unshown or of_mean.warnings)
    shown = (
        f"its cosine with the gradient is {model.ceiling[0]:.3f}, its length along it {spread(*model.gain)}"
    )
    fixed = judge_seeds(seen, right, shown, case.surrogate, said)
    ratio = judge_noise(model, seen.first.passes, beyond, said)
    judge_traces(seen, audited.calls, said)
    return said if fixed else of_mean.then(said), ratio


def _dead(ds: xr.Dataset, gradient: Mapping[str, torch.Tensor]) -> list[str]:
    """Parameters whose direction is 0 in every call although their gradient is not."""
    squares = ds["block_sqnorm"].isel(estimator=0).transpose("parameter", ...).values
    return [
        str(p)
        for p, own in zip(ds["parameter"].values, squares, strict=True)
        if float(np.nanmax(own, initial=0.0)) == 0 and bool(gradient[str(p)].any())
    ]


def _square(gradient: Mapping[str, torch.Tensor]) -> float:
    return sum(float(g.double().square().sum()) for g in gradient.values())


def _nonfinite(called: Called) -> list[str]:
    return [n for n, d in called.directions.items() if not bool(d.isfinite().all())]


def _result(name: str, problem: Problem, said: Said, evidence: dict[str, Any]) -> Audit:
    kinds = (tuple(sentences) for sentences in (said.problems, said.unshown, said.warnings, said.findings))
    problems, unshown, warnings, findings = kinds
    return Audit(name, problem.name, problems, unshown, warnings, findings, evidence)
