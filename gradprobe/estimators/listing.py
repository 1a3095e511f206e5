"""What is registered, as tables. Needs no torch."""

from __future__ import annotations

import pandas as pd

from gradprobe.estimators import ESTIMATORS


def list_estimators() -> pd.DataFrame:
    """Registered estimators: index name; columns target and summary."""
    rows = [{"name": e.name, "target": e.meta.get("target", ""), "summary": e.summary} for e in ESTIMATORS]
    return pd.DataFrame(rows, columns=["name", "target", "summary"]).set_index("name")
