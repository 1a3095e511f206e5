"""Sentences on direction and scale, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gradprobe.audits.measured import Part, Triple
from gradprobe.audits.result import spread
from gradprobe.audits.scale import NEAR, looks_like, off, spelled, within
from gradprobe.checkup.finding import named

WRONG, DOUBTFUL = 0.9, 0.99
"""Cosines with the gradient below which a direction is wrong, or worth a warning: smoothing alone seldom goes below
0.9, and a sigma for which it does can be told."""
LITTLE = 0.5
"""A direction is shown once its cosine with the gradient is shown to be this large."""
MOST = 4
"""Layers of one kind that get a sentence of their own."""


@dataclass
class Said:
    """Sentences of an audit, as in :class:`~gradprobe.audits.result.Audit`."""

    problems: list[str] = field(default_factory=list)
    unshown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def then(self, other: Said) -> Said:
        """These sentences and then those of another."""
        return Said(
            self.problems + other.problems,
            self.unshown + other.unshown,
            self.warnings + other.warnings,
            self.findings + other.findings,
        )


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        parts: The model and its layers, as measured against backprop.
        smoothed: Name of a part -> gain and largest cosine against the smoothed gradient; empty without sigma.
        factors: Factors that have a name.
        absent: Layers of which nothing, or always 0, is returned.
        swapped: Layer -> another parameter's name that its direction is the gradient of.
        exact: Whether there is no noise.
        surrogate: Whether the function means to follow a field of its own.
        told: Whether sigma was told.
    """

    parts: Sequence[Part]
    smoothed: Mapping[str, tuple[Triple, float]]
    factors: Mapping[str, float]
    absent: Collection[str]
    swapped: Mapping[str, str]
    exact: bool
    surrogate: bool
    told: bool

    def gain(self, part: Part) -> Triple:
        """The gain that counts: along the smoothed gradient where that is what the function follows."""
        return self.smoothed[part.name][0] if self._is_smoothed(part) else part.gain

    def most(self, part: Part) -> float:
        """The largest cosine that fits, likewise."""
        return self.smoothed[part.name][1] if self._is_smoothed(part) else part.most

    @property
    def uneven(self) -> bool:
        """Whether a layer's length is another than the model's, so that no one factor explains them."""
        room = NEAR * abs(self.gain(self.parts[0])[0])
        return any(x.apart[1] > room or x.apart[2] < -room for x in self.parts[1:])

    def whose(self, part: Part) -> str:
        """What lengths are told in."""
        return "the smoothed loss's gradient's" if self._is_smoothed(part) else "the gradient's"

    def _is_smoothed(self, part: Part) -> bool:
        own = self.smoothed.get(part.name)
        return own is not None and own[1] >= part.most


def judge_scale(case: Case, said: Said) -> None:
    """Whether lengths along the gradient are right, and what they look like where they are not."""
    model, layers = case.parts[0], case.parts[1:]
    low, high = case.gain(model)[1:]
    faulty = [x for x in layers if off(*case.gain(x)[1:]) and x.name not in case.absent]
    into = said.warnings if case.surrogate else said.problems
    if faulty and (case.uneven or not off(low, high)):
        into.extend(_of_layer(case, x) for x in faulty[:MOST])
        if len(faulty) > MOST:
            into.append(f"the scale of {_more(len(faulty))} is wrong in the same way.")
    elif case.absent and off(low, high):
        return  # what is absent is named, and explains it
    elif off(low, high):
        into.append(_of_model(case, model))
    else:
        _unfaulted(case, model, said)


def _unfaulted(case: Case, model: Part, said: Said) -> None:
    value, low, high = case.gain(model)
    could = [spelled(n, case.factors) for n in within(low, high, case.factors) if n != "1"]
    if low <= 0 <= high:
        also = ", so that 0 and a turned sign would fit as well as 1"
    else:
        also = f", so that {' and '.join(could)} would fit as well as 1"
    if low <= 0 <= high or could:
        (said.warnings if case.surrogate else said.unshown).append(
            f"its scale is not shown: its length along the gradient is {spread(value, low, high)} times "
            f"{case.whose(model)}{also}; audit it with more calls (repeats=) or less noise in each."
        )
    else:
        said.findings.append(
            f"scale: its length along the gradient is {spread(value, low, high)} times {case.whose(model)}."
        )
    if little := [x.name for x in case.parts[1:] if case.gain(x)[1] <= 0 <= case.gain(x)[2]]:
        said.warnings.append(f"in {named(little)} alone so many calls show no length along the gradient.")


def _of_layer(case: Case, part: Part) -> str:
    gain = case.gain(part)
    text = f"in layer {part.name!r} {_length(gain, case.whose(part))}{_looks(gain, case)}"
    if part.name in case.swapped:
        text += f"; what is there is the gradient of {case.swapped[part.name]!r}: the order or the names are wrong"
    return f"{text}."


def _of_model(case: Case, model: Part) -> str:
    gain = case.gain(model)
    return f"{_length(gain, case.whose(model))}{_looks(gain, case)}{_hint(case, gain)}."


def _hint(case: Case, gain: Triple) -> str:
    """The way to what smoothing explains, where it could."""
    if case.told or case.exact or not 1 / 3 < gain[0] < 3 or not looks_like(*gain[1:], case.factors):
        return ""
    return "; if its noise is large, tell sigma=: a smoothed loss has a gradient of another length"


def _length(gain: Triple, whose: str) -> str:
    if gain[1] <= 0 <= gain[2]:
        return f"there is little or nothing of the gradient in it ({spread(*gain)} times its length)"
    turned = "its sign is turned: " if gain[0] < 0 else ""
    return f"{turned}its length along the gradient is {spread(*gain)} times {whose}"


def _looks(gain: Triple, case: Case) -> str:
    """What a wrong length looks like."""
    found = looks_like(gain[1], gain[2], case.factors)
    if gain[1] <= 0 <= gain[2]:
        found = {n: v for n, v in found.items() if not n.startswith("-") and gain[1] < gain[2]}
        return f", which could be {_listed(found)} too" if found else ""
    if found:
        kind = "looks like" if len(found) == 1 else "could be any of"
        return f", which {kind} {_listed(found)}"
    plain = ", ".join(n for n in case.factors if not n.startswith("-"))
    hint = "" if case.told or case.exact else "; tell sigma= and samples= to have them compared"
    return f", which is none of {plain}{hint}"


def _listed(factors: Mapping[str, float]) -> str:
    return ", ".join(spelled(name, factors) for name in factors)


def judge_direction(case: Case, said: Said) -> None:
    """Whether the mean points along the gradient."""
    model, layers = case.parts[0], case.parts[1:]
    into = said.warnings if case.surrogate else said.problems
    hint = (
        ""
        if case.told or case.exact
        else "; if its noise is large, tell sigma=: a smoothed loss has another gradient"
    )
    wrong = [x for x in layers if case.most(x) < WRONG and x.name not in case.swapped]
    for x in wrong[:MOST]:
        into.append(f"in layer {x.name!r} its mean is not the gradient: {_at_most(case, x)}{hint}.")
    if len(wrong) > MOST:
        into.append(f"in {_more(len(wrong))} its mean is not the gradient.")
    if not wrong and not case.uneven and case.most(model) < WRONG:
        into.append(f"its mean is not the gradient: {_at_most(case, model)}{hint}.")
    elif not wrong and not case.swapped and not case.absent:
        _nearly(case, model, said)


def _nearly(case: Case, model: Part, said: Said) -> None:
    """Directions that are not far off: little doubted, or little shown."""
    doubted = [x for x in case.parts if case.most(x) < DOUBTFUL and not (x is model and case.uneven)]
    if doubted:
        x = doubted[-1]
        where = "" if x is model else f" in layer {x.name!r}"
        more = "" if case.told or case.exact else "; a large sigma does that (tell it as sigma=)"
        said.warnings.append(
            f"its mean{where} departs from the gradient by more than noise: {_at_most(case, x)}{more}."
        )
        return
    _shown(case, model, said)


def _shown(case: Case, model: Part, said: Said) -> None:
    """How much of a right direction was shown; nothing where the sign is turned."""
    value, low, high = model.ceiling
    if case.gain(model)[2] < 0:
        return
    if case.exact or low >= LITTLE:
        text = f"at least {low:.2f}" if math.isnan(value) else spread(value, low, high)
        said.findings.append(f"direction: the cosine of its mean with the gradient is {text}.")
    else:
        least = f"at least {low:.2g}" if low > 0 else "not shown to be positive"
        (said.warnings if case.surrogate else said.unshown).append(
            f"its direction is little shown: the cosine of its mean with the gradient is {least}, and nothing speaks "
            "against 1; more calls (repeats=) show more."
        )


def _more(count: int) -> str:
    """Layers beyond those that get a sentence of their own."""
    return f"{count - MOST} more layer{'s' * (count - MOST > 1)}"


def _at_most(case: Case, part: Part) -> str:
    if case.exact:
        return f"its cosine with the gradient is {math.copysign(case.most(part), case.gain(part)[0]):.3f}"
    return f"its cosine with the gradient is at most {case.most(part):.3f}, however many calls are averaged"
