"""What may be said of each layer under each method: a kind, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.report.kinds import ALPHA, BIAS, MODEL, REFUSED, SMALL, Evidence, Flags, Targets
from gradprobe.stats._contrasts import p_two_sided
from gradprobe.stats._declared import declared_law
from gradprobe.stats._holm import holm
from gradprobe.stats._intervals import LEAST_SEEDS, mean_se, pseudo_values

ENDS = ("", "_low", "_high")
NUMBERS = ("cosine", "ceiling", "needed", "nearly", "encoding", "smoothing")


def claims(
    ds: xr.Dataset,
    over: str,
    reference: str,
    targets: Targets,
    laws: Mapping[str, xr.Dataset],
    tests: xr.Dataset | None,
) -> pd.DataFrame:
    """Kind and numbers of every layer, or of the model, under every method.

    Args:
        ds: Results of one batch.
        over: ``layer`` or ``model``.
        reference: What estimates are held against.
        targets: What counts as good.
        laws: Result of :func:`laws_of`.
        tests: Result of :func:`sound`.

    Returns:
        One row for each layer and method, layer by layer: ``over layer method stochastic kind state exact declared
        seeds copies``, ``cosine ceiling needed nearly encoding smoothing`` (each with ``_low`` and ``_high``): the
        cosine after those copies, the copies that ``targets.cosine`` needs (of the declared mean where ``declared``),
        those from which on it is nearly exact, and the parts of a bias that is claimed and can be split.
    """
    noisy = ds["stochastic"].values.astype(bool)
    found = [_tested(ds, laws, over, reference, targets, tests)] if laws else []
    if not laws and not noisy.all():
        still = ds.isel(estimator=~noisy)
        found.append(_tested(still, laws_of(still, reference), over, reference, targets, None))
    if not laws and noisy.any():
        found.append(_one_block(ds.isel(estimator=noisy), over))
    table = pd.concat(found, ignore_index=True)
    methods, layers = [str(e) for e in ds["estimator"].values], _names(ds, over)
    place = [
        layers.index(x) * len(methods) + methods.index(m) for x, m in table[["layer", "method"]].to_numpy()
    ]
    return table.iloc[np.argsort(place)].reset_index(drop=True)


def laws_of(ds: xr.Dataset, reference: str) -> dict[str, xr.Dataset]:
    """``alignment`` of layers and model; empty for noise in a run of one block, of which the law says nothing."""
    noisy = ds["stochastic"].values.any()
    if noisy and ds["copies"].values.max(initial=0) < 2 * int(ds.attrs["block"]):
        return {}
    return {over: stats.alignment(ds, over, reference) for over in ("model", "layer")}


def _tested(
    ds: xr.Dataset,
    laws: Mapping[str, xr.Dataset],
    over: str,
    reference: str,
    targets: Targets,
    tests: xr.Dataset | None,
) -> pd.DataFrame:
    """Rows of methods that have two blocks, or no noise."""
    law = laws[over]
    now, aim = _now(law), stats.needed(law, targets.cosine)
    mean, where = declared_law(ds, laws["layer"], law, reference)
    evidence = Evidence(
        law, now, aim, stats.needed(law, targets.exact), stats.needed(mean, targets.cosine), where,
        _broken(tests, over), targets,
    )  # fmt: skip
    kind, declared = evidence.kinds()
    columns: dict[str, Any] = {"kind": kind, "state": law["state"].values, "exact": law["exact"].values}
    columns |= {"declared": declared, "copies": law["fitted_copies"].values}
    columns |= {"seeds": mean_se(law["X"].transpose(..., "seed").values)[2].astype(int)}
    columns |= {f"cosine{end}": values for end, values in now.items()}
    for end in ENDS:
        columns[f"ceiling{end}"] = law[f"ceiling{end}"].values
        far = evidence.mean[f"copies{end}"].values
        columns[f"needed{end}"] = np.where(declared, far, aim[f"copies{end}"].values)
        columns[f"nearly{end}"] = evidence.near[f"copies{end}"].values
    return _rows(ds, over, columns | _parts(ds, over, reference, kind == BIAS))


def _one_block(ds: xr.Dataset, over: str) -> pd.DataFrame:
    """Rows of methods with noise in a run of one block: nothing can be said."""
    names = _names(ds, over)
    refused = (ds["status"].transpose("estimator", "parameter", "seed").values == "refused").all(-1)
    own = (
        refused[:, [list(ds["layer"].values).index(n) for n in names]] if over == "layer" else refused.all(1)
    )
    kind = np.where(own, REFUSED, SMALL)
    columns: dict[str, Any] = {"kind": kind, "state": np.full(kind.shape, "too few copies")}
    columns |= {name: np.zeros(kind.shape, dtype=bool) for name in ("exact", "declared")}
    columns |= {"copies": np.full(kind.shape, int(ds["copies"].values.max(initial=0)))}
    return _rows(ds, over, columns | {"seeds": np.full(kind.shape, ds.sizes["seed"])})


def _names(ds: xr.Dataset, over: str) -> list[str]:
    return [MODEL] if over == "model" else list(dict.fromkeys(str(x) for x in ds["layer"].values))


def _rows(ds: xr.Dataset, over: str, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Arrays ``[estimator, layer]`` or ``[estimator]`` as rows."""
    methods, names = [str(e) for e in ds["estimator"].values], _names(ds, over)
    about: dict[str, Any] = {"over": over, "layer": names * len(methods)}
    about["method"] = np.repeat(methods, len(names))
    about["stochastic"] = np.repeat(ds["stochastic"].values.astype(bool), len(names))
    values = {name: np.asarray(v).reshape(-1) for name, v in columns.items()}
    rest = [f"{name}{end}" for name in NUMBERS for end in ENDS]
    nothing = np.full(len(about["layer"]), np.nan)
    return pd.DataFrame(about | values | {name: values.get(name, nothing) for name in rest})


def _now(law: xr.Dataset) -> dict[str, npt.NDArray[np.float64]]:
    """The law's cosine at the copies that each cell has."""
    reached = law["fitted_copies"].values
    found = {end: np.full(reached.shape, np.nan) for end in ENDS}
    for n in np.unique(reached[reached > 0]):
        at = stats.predict(law, int(n))
        for end, values in found.items():
            values[reached == n] = at[f"cosine{end}"].values[reached == n]
    return found


def sound(ds: xr.Dataset, reference: str) -> xr.Dataset | None:
    """``goodness_of_fit`` of all layers, with a flag ``broken`` corrected over layers and methods.

    Returns:
        None where it cannot be tested: blocks were left out by hand.
    """
    try:
        tests = stats.goodness_of_fit(ds, "layer", reference)
    except UsageError:
        return None
    return tests.assign(broken=tests["p_all"].fillna(1.0) < ALPHA)


def _broken(tests: xr.Dataset | None, over: str) -> Flags:
    """Where blocks are not what the law takes them for; a model whose layers are not is no better."""
    if tests is None:
        return np.zeros((), dtype=bool)
    layers: Flags = tests["broken"].values
    return layers if over == "layer" else np.asarray(layers.any(-1))


def _parts(ds: xr.Dataset, over: str, reference: str, claimed: Flags) -> dict[str, Any]:
    """Bias of the encoding and smoothing bias of the cells that are bias-limited."""
    both = {"bp", "smoothed"} <= {str(r) for r in ds["reference"].values}
    if reference != "bp" or not both or not claimed.any():
        return {}
    split = stats.decompose(ds, over=over)
    return {
        f"{part}{end}": np.where(claimed, split[name].sel(part=part).values, np.nan)
        for part in ("encoding", "smoothing")
        for end, name in zip(ENDS, ("value", "low", "high"), strict=True)
    }


def uneven(ds: xr.Dataset, reference: str, raw: xr.Dataset) -> pd.DataFrame:
    """What the whole model's direction loses because the gains of its layers differ.

    Args:
        ds: Results of one batch.
        reference: What estimates are held against.
        raw: ``alignment`` of the model.

    Returns:
        One row for each method whose ceiling is resolved both as it is and with each layer rescaled to unit gain:
        ``method raw raw_low raw_high unit unit_low unit_high p`` (Holm over methods, of equal ceilings).
    """
    laws = [raw, stats.alignment(ds, "model", reference, scale="unit-gain")]
    known = np.all([(law["state"] == "resolved") & law["enough"] & ~law["exact"] for law in laws], axis=0)
    parts = [law[k].transpose(..., "seed").values for law in laws for k in "AXG"]
    difference = pseudo_values(_less, *parts)
    seeds = mean_se(difference)[2] >= LEAST_SEEDS
    p = holm(np.where(known & seeds, p_two_sided(difference), np.nan))
    columns: dict[str, Any] = {"method": [str(e) for e in ds["estimator"].values]}
    for name, law in zip(("raw", "unit"), laws, strict=True):
        columns |= {f"{name}{end}": law[f"ceiling{end}"].values for end in ENDS}
    return pd.DataFrame(columns | {"p": p})[known].reset_index(drop=True)


def _less(*means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ceiling with gains alike less that with gains as they are, of the means of (A, X, G) of both."""
    (a, x, g), (b, y, h) = means[:3], means[3:]
    return b / np.sqrt(h * y) - a / np.sqrt(g * x)
