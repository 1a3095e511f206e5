"""The table of methods, whose sentences pandas would cut."""

from __future__ import annotations

import pandas as pd

from gradprobe.core.markup import table, view


def methods_view(frame: pd.DataFrame) -> str | None:
    """HTML of what ``gp.list_estimators`` returns; None for any other table."""
    if frame.index.name != "name" or list(frame.columns) != ["target", "summary"]:
        return None
    rows = [[str(name), row["target"], row["summary"]] for name, row in frame.iterrows()]
    return view(table(["name", "target", "summary"], rows, words=(1, 2), more="methods", most=200))
