"""Numbers, names and the sentence of one layer under one method."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from gradprobe.report import kinds as c

Row = Mapping[Hashable, Any]

MOST_NAMES = 3
"""Layers that are named one by one; more are counted."""


def cosine_text(row: Row, name: str = "cosine") -> str:
    """``0.743 [0.731, 0.755]``: a cosine with the ends that it has, none beyond -1 or 1."""
    value, low, high = ends_of(row, name)
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return _decimal(value, 2 if not high - low < 0.1 else 3)
    return _with_ends(value, low, high)


def ends_of(row: Row, name: str) -> tuple[float, float, float]:
    """A quantity of a row: value, low and high."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


def _with_ends(value: float, low: float, high: float) -> str:
    digits = 3 if high - low < 0.1 else 2
    half = 0.5 * 10**-digits  # ends are rounded outwards
    return f"{_decimal(value, digits)} [{_decimal(low - half, digits)}, {_decimal(high + half, digits)}]"


def _decimal(value: float, digits: int) -> str:
    return f"{min(max(round(value, digits), -1.0), 1.0) + 0.0:.{digits}f}"  # + 0.0: no -0


def copies_text(value: float, rounded: Callable[[float], int] = round) -> str:
    """A number of copies to two digits, one at least: ``41,000``."""
    value = max(value, 1.0)
    step = 10 ** max(int(math.floor(math.log10(value))) - 1, 0)
    return f"{max(rounded(value / step), 1) * step:,}"


def needed_text(row: Row, target: float) -> str:
    """``0.9 needs about 41,000 copies [35,000, 52,000]``, or at least so many; "" where nothing is known."""
    value, low, high = ends_of(row, "needed")
    if math.isfinite(value) and math.isfinite(high):
        return f"{target:g} needs {_about(value, low, high)}"
    if math.isfinite(low) and low > float(row["copies"]):
        return f"{target:g} needs more than {copies_text(low, math.floor)} copies, if any number is enough"
    return ""


def _about(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """``about 720 copies``, with ends (rounded outwards) if there are any."""
    text = copies_text(value)
    ends = f" [{copies_text(low, math.floor)}, {copies_text(high, math.ceil)}]" if high == high else ""
    return f"about {text} cop{'y' if text == '1' else 'ies'}{ends}"


def name_text(name: object) -> str:
    """A name as it is; in quotes, with marks for what cannot be printed, if it would not read as a name."""
    text = str(name)
    return text if text.isprintable() and text.strip() == text and text else repr(text)


def listed(names: Sequence[object]) -> str:
    """``a, b and c``."""
    shown = [name_text(n) for n in names]
    return " and ".join([*([", ".join(shown[:-1])] if len(shown) > 1 else []), *shown[-1:]])


def size_text(row: Row) -> str:
    """``1,000 copies x 5 seeds``."""
    copies, seeds = int(row["copies"]), int(row["seeds"])
    each = "copy" if copies == 1 else "copies"
    return f"{copies:,} {each} x {seeds} seed{'s' * (seeds != 1)}"


WORDS = {
    c.NEARLY: "nearly exact",
    c.GOOD: "good",
    c.NOISE: "noise-limited",
    c.BIAS: "bias-limited",
    c.AGAINST: "pointing away from the gradient",
    c.OPEN: "left open",
    c.NOTHING: "nothing can be said",
    c.SMALL: "nothing is claimed",
    c.BROKEN: "nothing is claimed",
    c.REFUSED: "not served",
    c.MISSING: "not computed",
    c.UNDEFINED: "no cosine",
}
"""How kinds are called in sentences."""

TINY = 0.01
"""A part of the bias that lies between its negative and it beyond doubt is not worth a word."""


def said(row: Row, target: float, why: str = "") -> str:
    """What is said of one layer (or of the model) under one method, without the two names.

    Args:
        row: A row of the table of claims.
        target: The cosine that is asked for.
        why: For a layer that the method refuses, the reason.
    """
    detail = why if row["kind"] == c.REFUSED else detail_text(row, target)
    return WORDS[row["kind"]] + f": {detail}" * bool(detail)


def detail_text(row: Row, target: float) -> str:
    """The numbers, or the reason, behind a kind."""
    kind = row["kind"]
    after = cosine_after(row)
    if kind == c.AGAINST or (row["exact"] and kind in c.CLAIMED):
        return after
    if kind in (c.NEARLY, c.GOOD):
        return _since(row, target) + after
    if kind == c.NOISE:
        declared = " if its mean is as declared" * bool(row["declared"])
        return f"{needed_text(row, target)}{declared}, {after}"
    if kind == c.BIAS:
        return f"no number of copies gets past {cosine_text(row, 'ceiling')}{_split(row)}"
    if kind == c.OPEN:
        return f"{after}{_open(row, target)}"
    return reason_text(row)


def cosine_after(row: Row) -> str:
    """``cosine 0.743 [0.731, 0.755] after 1,000 copies``."""
    after = "without noise" if row["exact"] else f"after {int(row['copies']):,} copies"
    return f"cosine {cosine_text(row)} {after}"


def reason_text(row: Row) -> str:
    """Why there is no number; the same for all layers of a method."""
    if row["kind"] == c.SMALL and not row["stochastic"]:
        return "it has no noise, and was held against one draw of a reference that has"
    return {
        c.NOTHING: f"{size_text(row)} are too few to tell a direction from noise",
        c.SMALL: f"{size_text(row)} are too few",
        c.BROKEN: "its blocks are not independent and alike, as the law needs them",
        c.UNDEFINED: "the gradient or the estimate is zero",
    }.get(row["kind"], "")


def _since(row: Row, target: float) -> str:
    """From how many copies on it is as good as it is called, where that is known to lie within the run."""
    name = "nearly" if row["kind"] == c.NEARLY else "needed"
    value, low, high = ends_of(row, name)
    if not (math.isfinite(value) and high <= row["copies"]):
        return ""
    if name == "nearly":
        return f"from {_about(value, low, high)} on, "
    return f"{target:g} after {_about(value)}, "


def _split(row: Row) -> str:
    """What the bias comes from, where that is known; without what is nothing."""
    found = []
    encoding = "the encoding" + " and unequal gains" * (row["over"] == "model")
    for name, cause in (("encoding", encoding), ("smoothing", "smoothing")):
        value, low, high = ends_of(row, name)
        if math.isfinite(value) and not -TINY < low <= high < TINY:
            found.append(f"{_with_ends(value, low, high)} to {cause}")
    return f"; it loses {' and '.join(found)}" if found else ""


def _open(row: Row, target: float) -> str:
    """What is known where neither noise nor bias can be blamed."""
    alone = "taken alone, but not beyond doubt among all claims"
    if float(row["cosine_low"]) > target:
        return f", above {target:g} if {alone}"
    if float(row["cosine_high"]) >= target:
        return f"; whether that reaches {target:g} cannot be told"
    needs = needed_text(row, target)
    if math.isfinite(float(row["needed_high"])):
        return f"; {needs} if {alone}"
    return f", too few to tell noise from bias{'; ' * bool(needs)}{needs}"
