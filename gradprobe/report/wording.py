"""Numbers, names and the sentence of one layer under one method."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from gradprobe.report import kinds as c

Row = Mapping[Hashable, Any]

MOST_NAMES = 3
"""Layers that are named one by one; more are counted."""


def cosine_text(row: Row, name: str = "cosine") -> str:
    """``0.743 [0.731, 0.755]``: a cosine with the ends that it has, none beyond -1 or 1."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    wide = not high - low < 0.1
    digits = 2 if wide else 3

    def written(x: float, away: float = 0.0) -> str:
        moved = round(x + away * 0.5 * 10**-digits, digits) if away else x  # ends are rounded outwards
        return f"{min(max(moved, -1.0), 1.0):.{digits}f}"

    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return written(value)
    return f"{written(value)} [{written(low, -1)}, {written(high, 1)}]"


def copies_text(value: float) -> str:
    """A number of copies to two digits: ``41,000``."""
    if value <= 0:
        return "0"
    step = 10 ** max(int(math.floor(math.log10(value))) - 1, 0)
    return f"{round(value / step) * step:,}"


def needed_text(row: Row, target: float) -> str:
    """``0.9 needs about 41,000 copies [35,000, 52,000]``, or at least so many; "" where nothing is known."""
    value, low, high = (float(row[f"needed{end}"]) for end in ("", "_low", "_high"))
    if math.isfinite(value) and math.isfinite(high):
        ends = f" [{copies_text(low)}, {copies_text(high)}]"
        return f"{target:g} needs about {copies_text(max(value, 1.0))} copies{ends}"
    if math.isfinite(low) and low > float(row["copies"]):
        return f"{target:g} needs more than {copies_text(low)} copies, if any number is enough"
    return ""


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
    c.OPEN: "open",
    c.NOTHING: "nothing can be said",
    c.SMALL: "no claim",
    c.BROKEN: "no claim",
    c.REFUSED: "not served",
    c.MISSING: "not computed",
    c.UNDEFINED: "no cosine",
}
"""How kinds are called in sentences."""


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
    if row["exact"] and kind in (c.NEARLY, c.GOOD, c.BIAS, c.AGAINST, c.OPEN):
        return f"cosine {cosine_text(row)}, without noise"
    reached = f"cosine {cosine_text(row)} after {int(row['copies']):,} copies"
    if kind == c.NEARLY:
        return _since(row) + reached
    if kind == c.GOOD:
        return reached + _enough(row, target)
    if kind == c.NOISE:
        as_declared = ", its mean being the smoothed gradient as it declares" * bool(row["declared"])
        return f"{reached}, {needed_text(row, target)}{as_declared}"
    if kind == c.BIAS:
        return f"no number of copies gets past {cosine_text(row, 'ceiling')} (this batch){_split(row)}"
    if kind == c.OPEN:
        return reached + _open(row, target)
    return reached if kind == c.AGAINST else reason_text(row)


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


def _since(row: Row) -> str:
    value, low, high = (float(row[f"nearly{end}"]) for end in ("", "_low", "_high"))
    if not (math.isfinite(value) and high <= row["copies"]):
        return ""
    ends = f" [{copies_text(max(low, 1.0))}, {copies_text(high)}]"
    return f"from about {copies_text(max(value, 1.0))} copies{ends} on; "


def _enough(row: Row, target: float) -> str:
    value, high = float(row["needed"]), float(row["needed_high"])
    inside = math.isfinite(value) and high < row["copies"]
    return f", {target:g} after about {copies_text(max(value, 1.0))}" if inside else ""


def _split(row: Row) -> str:
    parts = [f"{name} {_plain(row, name)}" for name in ("encoding", "smoothing") if math.isfinite(row[name])]
    return f"; lost to {' and '.join(parts)}" if parts else ""


def _plain(row: Row, name: str) -> str:
    value, low, high = (round(float(row[f"{name}{end}"]), 3) + 0.0 for end in ("", "_low", "_high"))  # no -0
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _open(row: Row, target: float) -> str:
    """What is known where neither noise nor bias can be blamed."""
    if float(row["cosine_low"]) > target:
        return f", above {target:g} by itself, but not beyond doubt over all that was looked at"
    if float(row["cosine_high"]) >= target:
        return f": whether that reaches {target:g} cannot be told"
    needs = needed_text(row, target)
    if math.isfinite(float(row["needed_high"])):
        return f"; {needs} by itself, but not beyond doubt over all that was looked at"
    return f", too few to tell noise from bias{'; ' * bool(needs)}{needs}"
