"""Many claims in few sentences: one for each kind of the whole model, one for each method's layers."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.report import kinds as c
from gradprobe.report.wording import (
    MOST_NAMES,
    WORDS,
    Row,
    cosine_text,
    detail_text,
    listed,
    name_text,
    reason_text,
)

ORDER = (
    c.BIAS, c.AGAINST, c.NOISE, c.OPEN, c.NOTHING, c.BROKEN, c.SMALL, c.UNDEFINED, c.MISSING, c.GOOD, c.NEARLY,
    c.REFUSED,
)  # fmt: skip
"""Kinds in a sentence on layers: what copies cannot mend first, what is fine last."""

REASONED = (c.NOTHING, c.SMALL, c.BROKEN, c.UNDEFINED, c.MISSING, c.REFUSED)
"""Kinds with one reason in place of numbers."""

IS = {
    c.NEARLY: "is nearly exact under",
    c.GOOD: "is good under",
    c.NOISE: "is noise-limited under",
    c.BIAS: "is bias-limited under",
    c.AGAINST: "points away from the gradient under",
    c.OPEN: "is left open by",
}


def model_sentences(rows: Sequence[Row], target: float) -> list[str]:
    """One sentence for each kind that the whole model has under some method; best first.

    Args:
        rows: Claims of the model.
        target: The cosine that is asked for.
    """
    found = []
    for kind in c.KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        if mine and kind in IS:
            shown = [f"{name_text(row['method'])} ({detail_text(row, target)})" for row in mine[:MOST_NAMES]]
            more = [f"{name_text(row['method'])} (cosine {cosine_text(row)})" for row in mine[MOST_NAMES:]]
            found.append(f"The whole model {IS[kind]} {_joined(shown + more)}.")
        else:
            for why in dict.fromkeys(reason_text(row) for row in mine):
                methods = listed([row["method"] for row in mine if reason_text(row) == why])
                found.append(f"Whole model, {methods}: {WORDS[kind]}{f': {why}' * bool(why)}.")
    return found


def layer_sentences(rows: Sequence[Row], target: float) -> list[str]:
    """One sentence for each method, or for several of which the same is to be said; worst first.

    Args:
        rows: Claims of layers.
        target: The cosine that is asked for.
    """
    said: dict[str, list[str]] = {}
    worst: dict[str, tuple[int, ...]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        mine = [row for row in rows if row["method"] == method]
        kinds = {kind: [row for row in mine if row["kind"] == kind] for kind in ORDER}
        text = "; ".join(_clause(some, len(mine), target) for some in kinds.values() if some)
        said.setdefault(text, []).append(method)
        worst[text] = tuple(-len(some) for some in kinds.values())
    return [f"{listed(said[text])}: {text}." for text in sorted(said, key=lambda t: worst[t])]


def _clause(rows: Sequence[Row], count: int, target: float) -> str:
    """What is said of all layers of one kind under one method."""
    kind = rows[0]["kind"]
    where = _where([row["layer"] for row in rows], count)
    if kind in REASONED:
        why = " or ".join(dict.fromkeys(reason_text(row) for row in rows))
        return f"{WORDS[kind]} {'of' if kind == c.NOTHING else 'in'} {where}{f' ({why})' * bool(why)}"
    if len(rows) == 1:
        return f"{WORDS[kind]} in {where} ({detail_text(rows[0], target)})"
    if kind in (c.BIAS, c.NOISE):
        of = "ceiling" if kind == c.BIAS else "cosine"
        bad = min(rows, key=lambda row: float(row[of]))
        return f"{WORDS[kind]} in {where} (worst {name_text(bad['layer'])}: {detail_text(bad, target)})"
    return f"{WORDS[kind]} in {where} ({_range(rows)})"


def _where(layers: Sequence[str], count: int) -> str:
    if len(layers) == count and count > 1:
        return f"all {count} layers"
    if len(layers) <= MOST_NAMES:
        return listed(layers)
    return f"{len(layers)} of {count} layers"


def _range(rows: Sequence[Row]) -> str:
    values = [float(row["cosine"]) for row in rows]
    low, high = (f"{end(values):.2f}" for end in (min, max))
    span = low if low == high else f"{low} to {high}"
    exact, copies_of = all(row["exact"] for row in rows), [int(row["copies"]) for row in rows]
    least, most = min(copies_of), max(copies_of)
    copies = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    after = "without noise" if exact else f"after {copies} copies"
    few = ": neither noise nor bias is beyond doubt" if rows[0]["kind"] == c.OPEN and not exact else ""
    return f"cosine {span} {after}{few}"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if len(parts) > 1 else []), *parts[-1:]])
