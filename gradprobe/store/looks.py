"""What doctor saw before a probe, in ``facts["doctor_table"]``: joined over requests and batches.

``{"problem": [{"check", "status", "sentence"}], "layers": {layer: {check: cell}}}``: of the whole problem in words,
of layers as cells alone, so that a hundred layers stay small. The sentences behind cells that say "warning" are in
``facts["doctor"]``.
"""

from __future__ import annotations

from typing import Any

Looks = dict[str, Any]
"""See the module."""

OK, WARNING = "ok", "warning"


def joined_looks(older: Looks | None, newer: Looks | None) -> Looks:
    """Two looks as one: the newer one's word counts, but what was warned of stays.

    Args:
        older: What an earlier request saw; None or empty if it did not look.
        newer: What a later one saw.
    """
    older, newer = older or {}, newer or {}
    problem = {x["check"]: x for x in older.get("problem", [])}
    for x in newer.get("problem", []):
        if x["status"] != OK or problem.get(x["check"], x)["status"] == OK:
            problem[x["check"]] = x
    layers = {name: dict(cells) for name, cells in older.get("layers", {}).items()}
    for name, cells in newer.get("layers", {}).items():
        known = layers.setdefault(name, {})
        known |= {check: cell for check, cell in cells.items() if known.get(check) != WARNING}
    return {"problem": list(problem.values()), "layers": layers} if problem or layers else {}
