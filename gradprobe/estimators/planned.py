"""A plan at work: each layer has its own method, copies and scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from gradprobe.core.copyplan import Plan
from gradprobe.core.errors import UsageError, described, finite, whole
from gradprobe.core.spec import parse
from gradprobe.core.streams import Streams
from gradprobe.estimators import register
from gradprobe.estimators.base import (
    Block,
    Directions,
    Draw,
    Estimator,
    Labelled,
    Layer,
    Problem,
    Read,
    make,
)
from gradprobe.layers.find import find_layers

Entry = tuple[str, int, float]

DEFAULT: Entry = ("lr", 1, 1.0)
"""What each layer gets without a plan."""


@register(
    "planned",
    summary="a plan (gradprobe plan): its own method, copies and scale for each layer; a copy is a whole estimate",
    order=90,
    color="#44AA99",
    target="smoothed",
    formula="in layer l: scale_l x mean of n_l copies of its method",
    source="gradprobe plan",
)
@dataclass(frozen=True)
class Planned(Estimator):
    """Runs a :class:`~gradprobe.core.copyplan.Plan`: ``gp.estimate(problem, plan)``, ``gp.probe(problem, [plan])``.

    One copy is one whole estimate: in each layer the mean of n_l copies of its method, times the layer's scale. Block
    k of m copies holds copies k m n_l to (k + 1) m n_l - 1 of each layer's method, as one noise block, so blocks and
    seeds are independent. The noise has keys of its own (purpose "planned ..."): a plan is never measured on the
    noise of the run that it was made from. With antithetic pairs or centre=mean they form within a block, as ever.

    Attributes:
        layers: {layer: (method, copies, scale)}; 0 copies for a direction of zero. None: ``lr`` with one copy
            everywhere. Layers that are not named are refused.
        file: Instead, a plan that was saved; its entries take the place of ``layers``.
    """

    whole: ClassVar[bool] = True

    layers: Mapping[str, Entry] | None = None
    file: str = ""

    def __post_init__(self) -> None:
        if self.file:
            if self.layers is not None:
                raise UsageError("planned takes layers= or file=, not both.")
            loaded = Plan.load(self.file)
            object.__setattr__(self, "layers", loaded.entries)
            object.__setattr__(self, "file", "")
        if self.layers is not None:
            object.__setattr__(self, "layers", _checked(self.layers))
        for method, _ in self._methods():
            _member(method)

    def __hash__(self) -> int:
        return hash(str(self.layers))

    @property
    def brief(self) -> bool:
        """Results call it by a digest: its options are too long to read."""
        return self.layers is not None

    @property
    def injection(self) -> str | None:
        """``joint`` if a member is; then layers depend on each other."""
        return "joint" if any(_member(m).injection == "joint" for m, _ in self._methods()) else "layerwise"

    @property
    def target(self) -> str:
        """``smoothed`` if every member aims at the (smoothed) gradient and none is rescaled, else ``surrogate``."""
        entries = [DEFAULT] if self.layers is None else [e for e in self.layers.values() if e[1]]
        plain = all(scale == 1.0 and _member(m).target in ("exact", "smoothed") for m, _, scale in entries)
        return "smoothed" if plain else "surrogate"

    def read(
        self,
        problem: Problem,
        layers: Sequence[Layer],
        block: Block,
        streams: Streams,
        memory: int | None = None,
        sharers: int = 1,
        storage: str = "float32",
    ) -> Read:
        """As for every estimator; it has lost as large a share of its estimates as the member that lost most."""
        own = replace(streams, purpose=f"planned {streams.purpose}")
        values = problem.parameters
        found: Directions = {n: torch.zeros_like(values[n]) for x in layers for n in x.parameters}
        lost, taken = 0.0, np.zeros(2)
        with problem.frozen():
            for estimator, copies, served in self._parts(layers):
                each = Block(block.index, block.copies * copies)
                part = estimator.read(problem, served, each, own, memory, sharers, storage)
                lost, taken = max(lost, part.nonfinite / copies), np.fmax(taken, part.bytes)
                for layer in served:
                    scale = self._entry(layer)[2]
                    found |= {n: part.directions[0][n] * scale for n in layer.parameters}
        return Read([found], lost, bytes=taken)

    def check_block(self, layers: Sequence[Layer], copies: int) -> None:
        """Refuse what one of its members refuses of its own copies in a block of whole estimates."""
        for estimator, n, served in self._parts(layers):
            estimator.check_block(served, copies * n)

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Layers that the plan does not name, and those that their method cannot serve.

        Raises:
            UsageError: The plan names a layer that the model has not: it is for another model.
        """
        known = [x.name for x in problem.once("layers", lambda: find_layers(problem)).layers]
        for name in self.layers or ():
            if name not in known:
                raise UsageError(
                    f"the plan is for another model: it has layer {name!r}, and this one has "
                    f"{', '.join(known[:20])}; make a plan from a run of this model."
                )
        refused = {x.name: f"the plan has no entry for layer {x.name}" for x in layers if not self._names(x)}
        for estimator, _, served in self._parts([x for x in layers if x.name not in refused]):
            refused |= estimator.refusals(problem, served)
        return refused

    def draws(self, layers: Sequence[Layer]) -> list[tuple[Draw, list[Layer], int]]:
        """The draws of its members, as often as it has copies of them."""
        parts = self._parts(layers)
        return [(d, unit, n * k) for member, n, served in parts for d, unit, k in member.draws(served)]

    def _names(self, layer: Layer) -> bool:
        return self.layers is None or layer.name in self.layers

    def _entry(self, layer: Layer) -> Entry:
        return DEFAULT if self.layers is None else self.layers[layer.name]

    def _methods(self) -> list[tuple[str, int]]:
        """Each method with each number of copies."""
        entries = [DEFAULT] if self.layers is None else self.layers.values()
        return list(dict.fromkeys((method, copies) for method, copies, _ in entries if copies))

    def _parts(self, layers: Sequence[Layer]) -> Iterator[tuple[Estimator, int, list[Layer]]]:
        """Each method and number of copies, with its layers: those of a joint draw are noisy together."""
        for method, copies in self._methods():
            served = [x for x in layers if self._names(x) and self._entry(x)[:2] == (method, copies)]
            if served:
                yield _member(method), copies, served


def _member(method: str) -> Estimator:
    """The estimator of one layer's entry.

    Raises:
        UsageError: There is none of that name, it is a plan itself, or it has no noise.
    """
    found = _made(method).estimator
    if not found.stochastic:
        raise UsageError(f"{method} has no noise, so a plan has no use for copies of it; run it by itself.")
    return found


def _made(method: str) -> Labelled:
    """The method, but no plan: to make one would open its file, which may be the one that is being read.

    Raises:
        UsageError: It is a plan, or unknown.
    """
    method = method.strip()
    found = None if _is_plan(method) else make(method)
    if found is None or isinstance(found.estimator, Planned):
        raise UsageError("a plan cannot hold a plan; name a method such as lr or es.")
    return found


def _is_plan(method: str) -> bool:
    """Whether it is written as a plan, or as something that is made of one."""
    if method.endswith(".json"):
        return True
    written = parse(method)
    return written.name == "planned" or bool(written.argument and _is_plan(written.argument))


def _checked(layers: Any) -> dict[str, Entry]:
    """Entries with their types put right.

    Raises:
        UsageError: They are none.
    """
    if not isinstance(layers, Mapping):
        raise UsageError(f"planned takes layers={{layer: (method, copies, scale)}}, not {described(layers)}.")
    found: dict[str, Entry] = {}
    for name, entry in layers.items():
        if not isinstance(entry, (tuple, list)) or len(entry) != 3 or not isinstance(entry[0], str):
            raise UsageError(
                f"a plan's layer is (method, copies, scale), such as ('lr', 20, 1.0), not {entry!r}."
            )
        method, copies, scale = entry
        copies = whole(f"the copies of layer {name!r}", copies, 0)
        scale = finite(f"the scale of layer {name!r}", scale)
        found[str(name)] = (_made(method).label if copies else "", copies, scale)
    return dict(sorted(found.items()))
