"""Many claims in few sentences: one for each kind of the whole model, one for each method's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from gradprobe.report import claims as c
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


def model_sentences(table: pd.DataFrame, targets: c.Targets) -> list[str]:
    """One sentence for each kind that the whole model has under some method; best first.

    Args:
        table: Rows of the model.
        targets: What counts as good.
    """
    found = []
    for kind in c.KINDS:
        rows: list[Row] = table[table["kind"] == kind].to_dict("records")  # type: ignore[assignment]  # keys are text
        if not rows:
            continue
        methods = [row["method"] for row in rows]
        if kind in IS:
            shown = [f"{row['method']} ({detail_text(row, targets.cosine)})" for row in rows[:MOST_NAMES]]
            more = [f"{row['method']} (cosine {cosine_text(row)})" for row in rows[MOST_NAMES:]]
            found.append(f"The whole model {IS[kind]} {_joined(shown + more)}.")
        elif kind in REASONED:
            why = reason_text(rows[0])
            found.append(f"Whole model, {listed(methods)}: {WORDS[kind]}{': ' * bool(why)}{why}.")
    return found


def layer_sentences(table: pd.DataFrame, targets: c.Targets) -> list[str]:
    """One sentence for each method, or for several of which the same is to be said; worst first.

    Args:
        table: Rows of layers.
        targets: What counts as good.
    """
    said: dict[str, list[str]] = {}
    worst: dict[str, tuple[int, ...]] = {}
    for method, mine in table.groupby("method", sort=False):
        clauses = [
            _clause(mine[mine["kind"] == kind], len(mine), targets)
            for kind in ORDER
            if (mine["kind"] == kind).any()
        ]
        text = "; ".join(clauses)
        said.setdefault(text, []).append(str(method))
        worst[text] = tuple(-int((mine["kind"] == kind).sum()) for kind in ORDER)
    return [f"{listed(said[text])}: {text}." for text in sorted(said, key=lambda t: worst[t])]


def _clause(rows: pd.DataFrame, count: int, targets: c.Targets) -> str:
    """What is said of all layers of one kind under one method."""
    kind, many = rows["kind"].iloc[0], len(rows)
    records: list[Any] = rows.to_dict("records")
    where = _where(list(rows["layer"]), count)
    if kind in REASONED:
        why = reason_text(records[0])
        return f"{WORDS[kind]} {'of' if kind == c.NOTHING else 'in'} {where}{f' ({why})' * bool(why)}"
    if many == 1:
        return f"{WORDS[kind]} in {where} ({detail_text(records[0], targets.cosine)})"
    if kind in (c.BIAS, c.NOISE):
        of = "ceiling" if kind == c.BIAS and not records[0]["exact"] else "cosine"
        bad = records[int(rows[of].to_numpy().argmin())]
        return (
            f"{WORDS[kind]} in {where} (worst {name_text(bad['layer'])}: {detail_text(bad, targets.cosine)})"
        )
    return f"{WORDS[kind]} in {where} ({_range(rows)})"


def _where(layers: Sequence[str], count: int) -> str:
    if len(layers) == count and count > 1:
        return f"all {count} layers"
    if len(layers) <= MOST_NAMES:
        return listed(layers)
    return f"{len(layers)} of {count} layers"


def _range(rows: pd.DataFrame) -> str:
    low, high = (f"{float(x):.2f}" for x in (rows["cosine"].min(), rows["cosine"].max()))
    span = low if low == high else f"{low} to {high}"
    after = "without noise" if rows["exact"].all() else f"after {int(rows['copies'].max()):,} copies"
    few = (
        ", too few to tell noise from bias"
        if (rows["kind"] == c.OPEN).all() and not rows["exact"].any()
        else ""
    )
    return f"cosine {span} {after}{few}"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if len(parts) > 1 else []), *parts[-1:]])
