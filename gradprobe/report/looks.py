"""Doctor's table of a stored run."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from gradprobe.checkup.diagnosis import in_order
from gradprobe.store.assemble import attribute


def doctor_table(ds: xr.Dataset) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """What doctor's quick look saw before a run was probed, what is fine too.

    Args:
        ds: Results.

    Returns:
        Findings of the whole problem (``check status sentence``, one row each), and a table of layers (index, in
        execution order) by checks (columns, in doctor's order; "" where a check does not apply). A cell is what was
        measured or "ok", or "warning"; the sentences of warnings are in ``attrs["doctor"]``. None for a run that was
        made before this was stored, or that nothing was computed for.
    """
    looks = attribute(ds, "doctor_table")
    if not looks:
        return None
    problem = pd.DataFrame(looks["problem"], columns=["check", "status", "sentence"])
    seen = {check for cells in looks["layers"].values() for check in cells}
    known = [entry.name for entry in in_order() if entry.name in seen]
    checks = known + sorted(seen - set(known))
    names = [x["name"] for x in attribute(ds, "layers") or [] if x["name"] in looks["layers"]]
    names += [name for name in looks["layers"] if name not in names]  # files keep them by name
    rows = [[looks["layers"][name].get(check, "") for check in checks] for name in names]
    layers = pd.DataFrame(rows, columns=checks, index=pd.Index(names, name="layer"), dtype=str)
    return problem, layers
