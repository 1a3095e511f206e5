"""``explore``: a run under the user's hands, in Jupyter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError, described, unknown
from gradprobe.core.optional import needs
from gradprobe.notebook.run import is_run, one_of
from gradprobe.store.paths import check_probed
from gradprobe.store.run import open_run

if TYPE_CHECKING:
    from gradprobe.notebook.panel import Explorer


def explore(run: xr.Dataset | str | Path, *, reference: str | None = None) -> Explorer:
    """Look at a run interactively: layer, methods and range of copies, with Acc. and Sta. of that range at once.

    Needs ipywidgets: ``pip install "gradprobe[explore]"``. Acc., Sta. and its floor are those of
    ``gp.stats.accuracy``, ``stability`` and ``stability_floor`` for the chosen range, averaged over seeds; the
    ceiling is that of the whole run (``gp.stats.alignment``). The panel is that of ``gp.plots.similarity``, with
    what lies outside the range faded.

    Args:
        run: What ``gp.probe`` or ``gp.open_run`` returns, or the path of a run.
        reference: What estimates are held against at first; by default ``"bp"`` if the run has it.

    Returns:
        A widget, which Jupyter shows. Its controls can be set from Python too: ``layer`` (None: whole model),
        ``methods``, ``copies`` (first, last) and ``reference`` are attributes with ``value``; ``table`` holds the
        numbers shown and ``figure()`` draws the panel for saving.

    Raises:
        UsageError: It is no run, there is no such reference, or ipywidgets is not installed.
    """
    ds = open_run(run) if isinstance(run, str | Path) else run
    if not isinstance(ds, xr.Dataset):
        raise UsageError(
            f"explore needs what gp.probe or gp.open_run returns, or the path of a run, not {described(run)}."
        )
    if "sqnorm" in ds or "kind" in ds.attrs:
        check_probed(one_of(ds)[0] if "sqnorm" in ds else ds)
    if not is_run(ds):
        raise UsageError(
            "explore needs a whole run, and these results have lost some of its parts; open the run again with "
            "gp.open_run."
        )
    known = [str(r) for r in np.asarray(ds["reference"].values)]
    if reference is not None and reference not in known:
        raise unknown("reference", reference, known)
    needs("ipywidgets", extra="explore", what="gp.explore")
    from gradprobe.notebook.panel import Explorer

    return Explorer(ds, reference or ("bp" if "bp" in known else known[0]))
