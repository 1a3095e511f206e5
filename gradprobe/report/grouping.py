"""Many claims in few sentences: one for each kind of the whole model, one for each method's layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from itertools import product

from gradprobe.report import kinds as c
from gradprobe.report.wording import (
    MOST_NAMES,
    WORDS,
    Row,
    cosine_after,
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

REASONED = {
    c.NOTHING: "nothing can be said of {}",
    c.SMALL: "nothing is claimed of {}",
    c.BROKEN: "nothing is claimed of {}",
    c.UNDEFINED: "there is no cosine in {}",
    c.MISSING: "nothing was computed in {}",
    c.REFUSED: "it does not serve {}",
}
"""Kinds with one reason in place of numbers, and what is said of layers."""

BEST = {c.NEARLY: "nearly", c.GOOD: "needed", c.NOISE: "needed"}
"""Numbers of copies by which methods of one kind are put in order, fewest first; by ceiling or cosine elsewhere."""


def model_sentences(rows: Sequence[Row], target: float) -> list[str]:
    """What is said of the whole model: together for all methods of which it has one kind, the best kind first.

    Methods without noise come last: of backprop nobody asks how good it is.

    Args:
        rows: Claims of the model.
        target: The cosine that is asked for.
    """
    found = []
    for stochastic, kind in product((True, False), c.KINDS):
        mine = [row for row in rows if row["kind"] == kind and row["stochastic"] == stochastic]
        if mine and kind in c.CLAIMED:
            found.append(f"In the whole model {_claim(sorted(mine, key=_rank), target)}.")
        else:
            for why in dict.fromkeys(reason_text(row) for row in mine):
                methods = listed([row["method"] for row in mine if reason_text(row) == why])
                found.append(f"Whole model, {methods}: {WORDS[kind]}{f': {why}' * bool(why)}.")
    return found


def layer_sentences(rows: Sequence[Row], target: float) -> list[str]:
    """What is said of the layers under each method, or under several of which it is the same; worst first.

    Args:
        rows: Claims of layers.
        target: The cosine that is asked for.
    """
    said: dict[str, list[str]] = {}
    worst: dict[str, tuple[int, ...]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        mine = [row for row in rows if row["method"] == method]
        kinds = {kind: [row for row in mine if row["kind"] == kind] for kind in ORDER}
        clauses = [_clause(some, len(mine), target) for some in kinds.values() if some]
        text = ". ".join([clauses[0], *map(_capital, clauses[1:])])
        said.setdefault(text, []).append(method)
        worst[text] = tuple(-len(some) for some in kinds.values())
    return [f"Under {listed(said[text])}, {text}." for text in sorted(said, key=lambda t: worst[t])]


def meanings(kinds: Collection[str], declared: bool, target: float, exact: float) -> dict[str, str]:
    """What the words of all other sentences mean, of those that occur.

    Args:
        kinds: Kinds that occur.
        declared: Whether a claim rests on a declared mean.
        target: The cosine that is asked for.
        exact: The cosine that is called nearly exact.
    """
    means = {
        c.NEARLY: f"a cosine above {exact:g}",
        c.GOOD: f"a cosine above {target:g}",
        c.NOISE: f"one below {target:g} that more copies lift above it",
        c.BIAS: f"one that no number of copies lifts to {target:g}",
        c.OPEN: "what is not beyond doubt over all layers and methods at once, though numbers may look so",
    }
    found = {WORDS[kind]: text for kind, text in means.items() if kind in kinds}
    return found | ({"as declared": "a mean that is taken to be the smoothed gradient"} if declared else {})


def _capital(clause: str) -> str:
    """A clause as a sentence; names of layers stay as they are."""
    ours = clause.startswith(("nothing ", "there is ", "it does ", "all ", "both "))
    return clause[0].upper() + clause[1:] if ours else clause


def _rank(row: Row) -> tuple[float, ...]:
    """Best first; what is not known last."""
    copies = float(row[BEST[row["kind"]]]) if row["kind"] in BEST else math.nan
    value = float(row["ceiling" if row["kind"] == c.BIAS and not row["exact"] else "cosine"])
    return tuple(math.inf if math.isnan(x) else x for x in (copies, -value))


def _claim(rows: Sequence[Row], target: float) -> str:
    """``a is good: ...``, or ``a and b are good. a: .... b: ...``; of more than three the first three in full."""
    subject, verb = listed([row["method"] for row in rows]), _verb(rows[0]["kind"], len(rows) > 1)
    if len(rows) == 1:
        return f"{subject} {verb}: {detail_text(rows[0], target)}"
    detail = cosine_after if rows[0]["kind"] == c.OPEN else partial(detail_text, target=target)
    each = [f"{name_text(row['method'])}: {detail(row)}" for row in rows[:MOST_NAMES]]
    rest = [f"{name_text(row['method'])}: {cosine_after(row)}" for row in rows[MOST_NAMES:]]
    return ". ".join([f"{subject} {verb}", *each, *rest])


def _verb(kind: str, plural: bool) -> str:
    if kind == c.AGAINST:
        return f"point{'s' * (not plural)} away from the gradient"
    return f"{'are' if plural else 'is'} {WORDS[kind]}"


def _clause(rows: Sequence[Row], count: int, target: float) -> str:
    """What is said of all layers of one kind under one method."""
    kind = rows[0]["kind"]
    where = _where([row["layer"] for row in rows], count)
    if kind in REASONED:
        why = " or ".join(dict.fromkeys(reason_text(row) for row in rows))
        return REASONED[kind].format(where) + f": {why}" * bool(why)
    verb = _verb(kind, len(rows) > 1)
    if len(rows) == 1:
        return f"{where} {verb}: {detail_text(rows[0], target)}"
    if kind in (c.BIAS, c.NOISE):
        bad = max(rows, key=_rank)
        return f"{where} {verb}, worst {name_text(bad['layer'])}: {detail_text(bad, target)}"
    return f"{where} {verb}: {_range(rows)}"


def _where(layers: Sequence[str], count: int) -> str:
    if len(layers) == count and count > 1:
        return f"all {count} layers" if count > 2 else "both layers"
    if len(layers) <= MOST_NAMES:
        return listed(layers)
    return f"{len(layers)} of {count} layers"


def _range(rows: Sequence[Row]) -> str:
    values = [float(row["cosine"]) for row in rows]
    low, high = (f"{end(values):.2f}" for end in (min, max))
    span = f"cosine {low}" if low == high else f"cosines from {low} to {high}"
    exact, copies_of = all(row["exact"] for row in rows), [int(row["copies"]) for row in rows]
    least, most = min(copies_of), max(copies_of)
    copies = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{span} {'without noise' if exact else f'after {copies} copies'}"
