"""The contract of every estimator, and how one is made from what a user writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gradprobe.core import spec
from gradprobe.core.copyplan import Plan, is_there
from gradprobe.core.errors import UsageError, described, unknown
from gradprobe.core.layer import Layer
from gradprobe.core.level import noisy
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.drawing import noise_refusal
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.blockread import Read
from gradprobe.estimators.pulling import Directions
from gradprobe.estimators.readout import ReadOut, refusal
from gradprobe.problems.problem import Problem

__all__ = [
    "Block",
    "Directions",
    "Draw",
    "Estimator",
    "Layer",
    "Problem",
    "Read",
    "ReadOut",
    "Streams",
    "make",
    "make_all",
]

Assignment = dict[str, tuple[Draw, ReadOut]]

PALETTE = ("#332288", "#117733", "#882255", "#999933", "#661100", "#6699CC", "#888888")
"""For estimators that declare no colour (Tol's muted scheme, distinguishable by colour-blind readers)."""


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What every estimator is: parameters only in the constructor, data only at the call, no state.

    A subclass is a frozen dataclass whose fields are its options. It defines :meth:`directions`; estimators
    that are read-outs of draws define :meth:`assignment` instead and get the rest.

    Attributes:
        stochastic: False: the direction depends on neither block nor seed; it is computed once.
        injection: ``"layerwise"``, ``"joint"`` or None (no noise in the model).
        uses_backward: Whether backprop runs through more than one layer.
        target: What the mean equals: ``"exact"`` (the gradient), ``"smoothed"`` (the gradient of the loss
            smoothed by the draw's noise) or ``"surrogate"`` (a field of its own).
        whole: Whether one copy is a whole estimate already, so that few copies are usual.
        brief: Whether results call it by a digest, because its options are too long to read.
        own_layers: Whether it serves layers of its own, which it :meth:`brings`, in place of the model's.
        argument: Name of the field that is an estimator and is written first, without a name; "" if there is none.
    """

    stochastic: ClassVar[bool] = True
    uses_backward: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    own_layers: ClassVar[bool] = False
    argument: ClassVar[str] = ""

    @property
    def brief(self) -> bool:
        """Whether results call it by a digest of its options."""
        return False

    @property
    def injection(self) -> str | None:
        """How many layers are noisy at a time; None without noise in the model."""
        return None

    @property
    def target(self) -> str:
        """What the mean equals."""
        return "surrogate"

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """Mean direction over a block of copies: a function of (parameters, buffers, batch, noise) alone.

        Args:
            problem: The problem; must be left exactly as it was.
            layers: The layers to serve, in execution order.
            block: Which copies, and how many.
            streams: Keyed noise of the seed: the only source of randomness.

        Returns:
            Parameter name -> mean direction over the block ``[*param]``, in the parameter's dtype or wider.
        """
        return self.read(problem, layers, block, streams).directions[0]

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
        """One block: its :meth:`directions`, and how many of its copies were lost.

        Args:
            problem: As for :meth:`directions`; so are ``layers``, ``block`` and ``streams``.
            layers: The layers to serve.
            block: Which copies.
            streams: Keyed noise.
            memory: Bytes that copies may use at once; None for half of what is free.
            sharers: Processes that share the memory.
            storage: How intermediates of sign-encoded read-outs are kept; it changes no number.
        """
        own = type(self).directions is not Estimator.directions
        if own and self.assignment(layers) is None:
            return Read([self.directions(problem, layers, block, streams)], 0)
        from gradprobe.estimators.draws import planned_read

        return planned_read(self, problem, layers, block, streams, memory, sharers, storage)

    def assignment(self, layers: Sequence[Layer]) -> Assignment | None:
        """For each layer that is served, its draw and read-out; None if the estimator is no read-out."""
        return None

    def refusals(self, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
        """Layers that cannot be served -> why not. By default what their draws and read-outs cannot serve."""
        from gradprobe.estimators.draws import noisy_together

        assigned = self.assignment(layers) or {}
        why = {x.name: refusal(problem, x, *assigned[x.name]) for x in layers if x.name in assigned}
        left = {name: given for name, given in assigned.items() if not why.get(name)}
        for draw, unit in noisy_together(left, layers):
            why |= dict.fromkeys((x.name for x in unit), noise_refusal(problem, draw, noisy(unit)))
        return {name: reason for name, reason in why.items() if reason}

    def brings(self, problem: Problem, layers: Sequence[Layer]) -> list[Layer]:
        """Layers of its own for layers of the model that are probed; other estimators refuse them."""
        return []

    def draws(self, layers: Sequence[Layer]) -> list[tuple[Draw, list[Layer], int]]:
        """What one copy is made of: draws, each with layers that are noisy at once, and how often; [] if unknown."""
        from gradprobe.estimators.draws import noisy_together

        assigned = self.assignment(layers) or {}
        return [(draw, noisy(unit), 1) for draw, unit in noisy_together(assigned, layers)]

    def forwards(self, layers: Sequence[Layer], copies: int) -> int:
        """Forward passes of the batch that ``copies`` copies need, the one clean pass included."""
        return 1 + copies * sum(often * draw.passes for draw, _, often in self.draws(layers))

    def grain(self, layers: Sequence[Layer]) -> tuple[int, int]:
        """Multiples that copies come in, and the fewest in a block: what pairs and centres need."""
        assigned = (self.assignment(layers) or {}).values()
        step = 2 if any(draw.antithetic for draw, _ in assigned) else 1
        return step, max([step, *(r.shaping.fewest(draw.antithetic) for draw, r in assigned)])

    def check_block(self, layers: Sequence[Layer], copies: int) -> None:
        """Refuse a block that its draws and read-outs cannot fill, or a sigma that lacks one of the layers.

        Raises:
            UsageError: They cannot, or it does.
        """
        for draw, unit, _ in self.draws(layers):
            draw.check_block(copies)
            for layer in unit:
                draw.sigma_of(layer.name)
        for draw, readout in (self.assignment(layers) or {}).values():
            readout.check_block(copies, draw.antithetic)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An estimator with its canonical label and the facts that travel with results.

    Attributes:
        label: What results call it.
        estimator: The estimator.
        color: Its colour in figures.
        summary: One line.
        spec: What makes it again, where that is not the label.
    """

    label: str
    estimator: Estimator
    color: str
    summary: str
    spec: str = ""


Given = str | Path | Estimator | Plan
"""What a user gives for an estimator."""


def make(given: Given, common: Mapping[str, Any] | None = None) -> Labelled:
    """Make an estimator from a string such as ``"lr(noise=rademacher, sigma=0.1)"``, or label an instance.

    Args:
        given: Name with options, an instance, a plan, or a plan's file: its path, or its name, which ends in .json.
        common: Options for every estimator that has them and was not given them itself.

    Returns:
        The estimator and its canonical label (defaults dropped, keys sorted).

    Raises:
        UsageError: Unknown name, option or value.
    """
    if isinstance(given, Path) or (isinstance(given, str) and given.strip().endswith(".json")):
        given = Plan.load(given.strip() if isinstance(given, str) else given)
    if isinstance(given, Plan):
        given = given.spec
    if isinstance(given, Estimator):
        for key, value in (common or {}).items():
            if value is not None and hasattr(given, key):
                raise UsageError(
                    f"give {key} to the {type(given).__name__} itself: it is an instance already."
                )
        name = _registered_name(given)
        return _labelled(name or type(given).__name__, given, registered=name is not None)
    if not isinstance(given, str):
        raise UsageError(f"an estimator is a name or an Estimator, not {described(given)}.")
    wanted = spec.parse(given)
    factory = ESTIMATORS.get(wanted.name)
    if not (isinstance(factory, type) and issubclass(factory, Estimator)):
        raise UsageError(f"the estimator {wanted.name!r} is not a subclass of gradprobe.Estimator.")
    options = {f.name: f.default for f in dataclasses.fields(factory)}
    for key in wanted.options:
        if key not in options:
            raise unknown(f"option of {wanted.name}", key, options)
    chosen = {k: v for k, v in (common or {}).items() if k in options and v is not None}
    chosen |= wanted.options
    if wanted.argument:
        chosen |= _member(wanted, factory, common)
    try:
        return _labelled(wanted.name, factory(**chosen), registered=True)
    except TypeError as error:
        raise UsageError(f"{given!r} does not work: {error}") from error


def make_all(given: Sequence[Given] | Given, **common: Any) -> list[Labelled]:
    """Make several; the same estimator twice is refused.

    Args:
        given: Names with options (one string may hold several, separated by commas), instances or plans.
        **common: Options for every estimator that has them and was not given them itself.

    Raises:
        UsageError: Nothing given, something unknown, or one given twice.
    """
    if isinstance(given, (str, Path, Estimator, Plan)):
        given = [given]
    if not isinstance(given, Iterable):
        raise UsageError(f"estimators must be names or Estimators, not {given!r}.")
    single: list[Given] = []
    for item in given:
        single.extend(_several(item) if isinstance(item, str) else [item])
    if not single:
        raise UsageError(f"no estimators given; choose from {', '.join(ESTIMATORS.names())}.")
    made = [make(item, common) for item in single]
    labels = [item.label for item in made]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"estimator {label!r} is given twice; leave one out.")
    return made


def _member(wanted: spec.Spec, factory: type[Estimator], common: Mapping[str, Any] | None) -> dict[str, str]:
    """The estimator that stands first in another's brackets; options of the run reach it.

    Raises:
        UsageError: The other takes none, or has it by name as well.
    """
    if not factory.argument:
        raise UsageError(f"options of {wanted.name} are written name=value, and {wanted.argument!r} is none.")
    if factory.argument in wanted.options:
        raise UsageError(f"{wanted.name} is given {factory.argument} twice; leave one out.")
    made = make(wanted.argument, common)
    return {factory.argument: made.spec or made.label}


def _several(text: str) -> list[str]:
    """What a string names: the file of a plan, whatever its name, or names separated by commas."""
    return [text] if text.strip().endswith(".json") and is_there(text.strip()) else spec.split(text)


def _registered_name(estimator: Estimator) -> str | None:
    return next((e.name for e in ESTIMATORS if e.item is type(estimator)), None)


def _labelled(name: str, estimator: Estimator, registered: bool) -> Labelled:
    differing = {}
    for f in dataclasses.fields(estimator):
        value = getattr(estimator, f.name)
        if value != f.default:
            differing[f.name] = value
    entry = ESTIMATORS.entry(name) if registered else None
    member = differing.pop(estimator.argument, "")
    label, full = spec.label(name, differing, member), ""
    if estimator.brief:
        label, full = f"{name}({spec.digest(label)[:8]})", label
    color = entry.meta.get("color") if entry else None
    return Labelled(
        label,
        estimator,
        color or PALETTE[int(spec.digest(label), 16) % len(PALETTE)],
        entry.summary if entry else (type(estimator).__doc__ or "").partition("\n")[0],
        full,
    )
