"""What has to be computed: one task for each draw (or estimator), layer (or all) and seed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from gradprobe.core.layer import Layer
from gradprobe.core.level import noisy
from gradprobe.core.spec import digest
from gradprobe.engine.draw import Draw
from gradprobe.estimators.base import Estimator, Labelled
from gradprobe.estimators.bringing import refused
from gradprobe.estimators.draws import noisy_together
from gradprobe.estimators.readout import ReadOut
from gradprobe.problems.problem import Problem
from gradprobe.store.schema import SAMPLE_MOMENTS, UnitKey, View

OWN = "own"
"""Name of the read-out of an estimator that is no read-out of a draw."""


@dataclass(frozen=True)
class Task:
    """A unit to compute.

    Attributes:
        key: What it is stored under.
        layers: The layers that it serves, or levels of the noise of some.
        draw: The draw, or None.
        readouts: Read-outs of the draw, by name.
        estimator: The estimator, if it is no read-out.
    """

    key: UnitKey
    layers: tuple[Layer, ...]
    draw: Draw | None
    readouts: dict[str, ReadOut]
    estimator: Estimator | None = None

    @property
    def noisy(self) -> list[Layer]:
        """The layers whose noise a draw puts in."""
        return noisy(self.layers)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters of its layers."""
        return tuple(p for layer in self.layers for p in layer.parameters)

    def held(self, references: Sequence[str]) -> tuple[str, ...]:
        """Those of the references that there are for it: what has no draw has nothing to smooth."""
        return tuple(name for name in references if name != "smoothed" or self.smooths)

    @property
    def smooths(self) -> bool:
        """Whether its noise smooths the loss: that of a draw whose losses are measured, not their derivatives."""
        return self.draw is not None and not self.draw.derived

    def extras(self, per_sample: bool) -> tuple[str, ...]:
        """Names of what is stored besides moments of directions."""
        levels = any(layer.level_of for layer in self.layers)
        return SAMPLE_MOMENTS if per_sample and self.draw is not None and not levels else ()

    @property
    def drawn(self) -> list[tuple[Draw, list[Layer], int]]:
        """What one copy of an estimator that is no read-out is made of, where it says so; else []."""
        return [] if self.estimator is None else self.estimator.draws(self.layers)

    @property
    def fixed(self) -> bool:
        """Whether one block says it all: the estimator uses no noise."""
        return self.estimator is not None and not self.estimator.stochastic


@dataclass(frozen=True)
class Plan:
    """Tasks, and the estimators as results will know them."""

    tasks: list[Task]
    views: list[View]


def make_plan(
    problem: Problem, layers: Sequence[Layer], estimators: Sequence[Labelled], seeds: Sequence[int]
) -> Plan:
    """Work out the tasks; a draw that several estimators read is one task.

    Args:
        problem: The problem.
        layers: Layers to probe, in execution order.
        estimators: What to probe them with.
        seeds: Independent repetitions.

    Returns:
        Tasks ordered by seed, so that a run that is stopped has whole seeds; and views.
    """
    views: list[View] = []
    wanted: dict[tuple[str, str | None], Task] = {}
    for item in estimators:
        refusals = refused(item.estimator, problem, layers)
        served = [layer for layer in layers if layer.name not in refusals]
        sources = _sources(item, served, wanted)
        made = item.estimator
        views.append(
            View(
                item.label,
                sources,
                refusals,
                made.stochastic,
                made.target,
                item.color,
                item.summary,
                item.spec,
                made.grain(served),
                made.whole and made.stochastic,
            )
        )
    tasks = []
    for seed in seeds:
        for (source, layer), task in wanted.items():
            if not task.fixed or seed == seeds[0]:
                key = UnitKey(source, layer, 0 if task.fixed else seed)
                tasks.append(Task(key, task.layers, task.draw, task.readouts, task.estimator))
    return Plan(tasks, views)


def _sources(
    item: Labelled, layers: Sequence[Layer], wanted: dict[tuple[str, str | None], Task]
) -> dict[str, tuple[str, str]]:
    """Note what an estimator needs in ``wanted``; return which unit and read-out answer for each layer."""
    assigned = item.estimator.assignment(layers)
    if assigned is None:
        source = f"{item.label}{_code(item.estimator)} over {_names(layers)}"
        if layers:
            wanted[source, None] = Task(UnitKey(source, None, 0), tuple(layers), None, {}, item.estimator)
        return {layer.name: (source, OWN) for layer in layers}
    sources = {}
    for draw, unit in noisy_together(assigned, layers):
        alone = draw.injection == "layerwise"
        source = str(draw) if alone else f"{draw} over {_names(unit)}"
        at = (source, unit[0].name if alone else None)
        task = wanted.setdefault(at, Task(UnitKey(*at, 0), tuple(unit), draw, {}))
        for layer in unit:
            readout = assigned[layer.name][1]
            task.readouts[str(readout)] = readout
            sources[layer.name] = (source, str(readout))
    return sources


def _names(layers: Sequence[Layer]) -> str:
    return ", ".join(layer.name for layer in layers)


def _code(estimator: Estimator) -> str:
    """A mark of the code of an estimator that is not gradprobe's own: edited code must be computed anew."""
    if type(estimator).__module__.startswith("gradprobe."):
        return ""
    try:
        return f" [{digest(inspect.getsource(type(estimator)))[:8]}]"
    except (OSError, TypeError):
        return ""
