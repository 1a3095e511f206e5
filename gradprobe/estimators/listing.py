"""What is registered, as tables. Needs no torch."""

from __future__ import annotations

import pandas as pd

from gradprobe.estimators import ESTIMATORS

TARGETS = {
    "exact": "the gradient",
    "smoothed": "the gradient of the smoothed loss",
    "surrogate": "a field of its own",
}


def list_estimators() -> pd.DataFrame:
    """Registered estimators: index name; columns target (what the mean equals) and summary.

    Example:
        >>> gp.list_estimators().loc[["lr", "alr"], "target"].to_dict()
        {'lr': 'smoothed', 'alr': 'surrogate'}
    """
    rows = [{"name": e.name, "target": e.meta.get("target", ""), "summary": e.summary} for e in ESTIMATORS]
    return pd.DataFrame(rows, columns=["name", "target", "summary"]).set_index("name")


def markdown() -> str:
    """The table of methods as the README shows it."""
    lines = ["| method | what it is | its mean is |", "|---|---|---|"]
    for name, row in list_estimators().iterrows():
        lines.append(f"| `{name}` | {row['summary']} | {TARGETS.get(row['target'], row['target'])} |")
    return "\n".join(lines)
