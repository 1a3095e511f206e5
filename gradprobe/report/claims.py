"""What may be said of each layer under each method: a kind, and the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._contrasts import p_two_sided
from gradprobe.stats._holm import holm
from gradprobe.stats._intervals import LEAST_SEEDS, mean_se, pseudo_values

NEARLY, GOOD, NOISE, BIAS, AGAINST = "nearly exact", "good", "noise-limited", "bias-limited", "against"
OPEN, NOTHING, SMALL, BROKEN = "open", "nothing", "too small", "law broken"
REFUSED, MISSING, UNDEFINED = "refused", "missing", "undefined"
KINDS = (NEARLY, GOOD, NOISE, BIAS, AGAINST, OPEN, NOTHING, SMALL, BROKEN, REFUSED, MISSING, UNDEFINED)

ALPHA = 0.05
"""Chance that any claim of one kind is false, over all layers and methods (Holm, two-sided tests)."""

KNOWN = ("resolved", "bounded", "unresolved")
MODEL = "whole model"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Targets:
    """What counts as good.

    Attributes:
        cosine: The cosine that is asked for.
        exact: The cosine from which on a direction is called nearly exact.
    """

    cosine: float
    exact: float


def claims(
    ds: xr.Dataset, over: str, reference: str, targets: Targets, tests: xr.Dataset | None
) -> pd.DataFrame:
    """Kind and numbers of every layer, or of the model, under every method.

    Args:
        ds: Results of one batch.
        over: ``layer`` or ``model``.
        reference: What estimates are held against.
        targets: What counts as good.
        tests: Result of :func:`sound`.

    Returns:
        One row for each layer and method, in the order of the results: ``over layer method kind state exact seeds
        copies``, ``cosine ceiling needed`` (each with ``_low`` and ``_high``), ``encoding`` and ``smoothing``
        (likewise, where a claim of bias can be split).
    """
    noisy = ds["stochastic"].values.astype(bool)
    short = ds["copies"].values.max(initial=0) < 2 * int(ds.attrs["block"])
    found = [_tested(ds, over, reference, targets, tests)] if not short else []
    if short and not noisy.all():
        found.append(_tested(ds.isel(estimator=~noisy), over, reference, targets, None))
    if short and noisy.any():
        found.append(_one_block(ds.isel(estimator=noisy), over))
    table = pd.concat(found, ignore_index=True)
    place = {str(e): i for i, e in enumerate(ds["estimator"].values)}
    order = table["method"].map(place) + len(place) * table["place"]
    return (
        table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True).drop(columns="place")
    )


def _tested(
    ds: xr.Dataset, over: str, reference: str, targets: Targets, tests: xr.Dataset | None
) -> pd.DataFrame:
    """Rows of methods that have two blocks, or no noise."""
    law = stats.alignment(ds, over, reference)
    now = _now(law)
    aim, near = stats.needed(law, targets.cosine), stats.needed(law, targets.exact)
    p_along = p_two_sided(law["A"].transpose(..., "seed").values)
    kind = _kinds(law, now, aim, near, p_along, _broken(tests, over), targets)
    columns = {"kind": kind, "state": law["state"].values, "exact": law["exact"].values}
    columns |= {"seeds": mean_se(law["X"].transpose(..., "seed").values)[2].astype(int)}
    columns |= {"copies": law["fitted_copies"].values} | {f"cosine{e}": v for e, v in now.items()}
    for end in ("", "_low", "_high"):
        columns[f"ceiling{end}"] = law[f"ceiling{end}"].values
        columns[f"needed{end}"] = aim[f"copies{end}"].values
    columns |= _parts(ds, over, reference, kind == BIAS)
    return _rows(ds, over, columns)


def _one_block(ds: xr.Dataset, over: str) -> pd.DataFrame:
    """Rows of methods with noise in a run of one block: nothing can be said."""
    layers = _layers(ds) if over == "layer" else [MODEL]
    shape = (ds.sizes["estimator"], len(layers)) if over == "layer" else (ds.sizes["estimator"],)
    refused = (ds["status"].transpose("estimator", "parameter", "seed").values == "refused").all(-1)
    first = [list(ds["layer"].values).index(name) for name in layers] if over == "layer" else []
    kind = np.where(refused[:, first], REFUSED, SMALL) if over == "layer" else np.full(shape, SMALL)
    last = int(ds["copies"].values.max(initial=0))
    columns: dict[str, Any] = {"kind": kind, "state": np.full(shape, "too few copies")}
    columns |= {"exact": np.zeros(shape, bool), "copies": np.full(shape, last)}
    columns |= {"seeds": np.full(shape, ds.sizes["seed"])}
    return _rows(ds, over, columns)


def _layers(ds: xr.Dataset) -> list[str]:
    return list(dict.fromkeys(str(x) for x in ds["layer"].values))


def _rows(ds: xr.Dataset, over: str, columns: dict[str, Any]) -> pd.DataFrame:
    """Arrays ``[estimator, layer]`` or ``[estimator]`` as rows."""
    methods, layers = [str(e) for e in ds["estimator"].values], _layers(ds)
    names = layers if over == "layer" else [MODEL]
    across = len(names)
    table = pd.DataFrame({name: np.asarray(values).reshape(-1) for name, values in columns.items()})
    table.insert(0, "over", over)
    table.insert(1, "layer", names * len(methods))
    table.insert(2, "method", np.repeat(methods, across))
    table["place"] = np.tile(np.arange(across), len(methods))
    wanted = [f"{n}{e}" for n in ("cosine", "ceiling", "needed", "encoding", "smoothing") for e in _ENDS]
    for name in wanted:
        if name not in table:
            table[name] = np.nan
    return table


_ENDS = ("", "_low", "_high")


def _now(law: xr.Dataset) -> dict[str, npt.NDArray[np.float64]]:
    """The law's cosine at the copies that each cell has."""
    reached = law["fitted_copies"].values
    found = {end: np.full(reached.shape, np.nan) for end in _ENDS}
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


def _kinds(
    law: xr.Dataset,
    now: dict[str, npt.NDArray[np.float64]],
    aim: xr.Dataset,
    near: xr.Dataset,
    p_along: npt.NDArray[np.float64],
    broken: Flags,
    targets: Targets,
) -> npt.NDArray[np.str_]:
    """Kind of every cell.

    A claim needs three things: its test, corrected over all cells with noise; the 95 % interval of what is quoted
    with it on the right side of the threshold; a run large enough for that interval.
    """
    state, exact = law["state"].values, law["exact"].values.astype(bool)
    there = np.isin(state, KNOWN)
    tried = there & law["enough"].values & ~broken & ~exact

    def sure(p: npt.NDArray[np.float64]) -> Flags:
        return np.asarray(exact | (np.nan_to_num(holm(np.where(tried, p, np.nan)), nan=1.0) <= ALPHA))

    reached, beyond = sure(aim["p_reached"].values), sure(near["p_reached"].values)
    limit = sure(aim["p_ceiling"].values)
    low, high, value = now["_low"], now["_high"], now[""]
    top = np.where(exact, value, law["ceiling_high"].values)
    names = [MISSING, REFUSED, UNDEFINED, SMALL, SMALL, BROKEN, NEARLY, GOOD, AGAINST, BIAS, NOISE, NOTHING]
    with np.errstate(invalid="ignore"):
        conditions = [
            state == "missing",
            state == "refused",
            state == "undefined",
            ~there,
            ~exact & ~law["enough"].values,
            ~exact & broken,
            beyond & near["reached"].values & (low > targets.exact),
            reached & aim["reached"].values & (low > targets.cosine),
            sure(p_along) & (high < 0),
            limit & ~aim["ceiling_above"].values & (top < targets.cosine) & (state == "resolved"),
            reached & limit & aim["ceiling_above"].values & (high < targets.cosine)
            & np.isfinite(aim["copies_high"].values),
            ~((low > 0) | (high < 0)),
        ]  # fmt: skip
    return np.select(conditions, names, default=OPEN)


def _parts(ds: xr.Dataset, over: str, reference: str, claimed: Flags) -> dict[str, Any]:
    """Bias of the encoding and smoothing bias of the cells that are bias-limited."""
    both = {"bp", "smoothed"} <= {str(r) for r in ds["reference"].values}
    if reference != "bp" or not both or not claimed.any():
        return {}
    split = stats.decompose(ds, over=over)
    return {
        f"{part}{end}": np.where(claimed, split[name].sel(part=part).values, np.nan)
        for part in ("encoding", "smoothing")
        for end, name in zip(_ENDS, ("value", "low", "high"), strict=True)
    }


def uneven(ds: xr.Dataset, reference: str) -> pd.DataFrame:
    """What the whole model's direction loses because the gains of its layers differ.

    Args:
        ds: Results of one batch.
        reference: What estimates are held against.

    Returns:
        One row for each method whose ceiling is resolved both as it is and with each layer rescaled to unit gain:
        ``method raw raw_low raw_high unit unit_low unit_high p`` (Holm over methods, of equal ceilings).
    """
    if ds["copies"].values.max(initial=0) < 2 * int(ds.attrs["block"]):
        return pd.DataFrame(columns=["method", "p"])
    laws = [stats.alignment(ds, "model", reference, scale=s) for s in ("raw", "unit-gain")]
    known = np.all([(law["state"] == "resolved") & law["enough"] & ~law["exact"] for law in laws], axis=0)
    parts = [law[k].transpose(..., "seed").values for law in laws for k in "AXG"]
    difference = pseudo_values(_less, *parts)
    seeds = mean_se(difference)[2] >= LEAST_SEEDS
    p = holm(np.where(known & seeds, p_two_sided(difference), np.nan))
    columns: dict[str, Any] = {"method": [str(e) for e in ds["estimator"].values]}
    for name, law in zip(("raw", "unit"), laws, strict=True):
        columns |= {f"{name}{end}": law[f"ceiling{end}"].values for end in _ENDS}
    return pd.DataFrame(columns | {"p": p})[known].reset_index(drop=True)


def _less(*means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ceiling with gains alike less that with gains as they are, of the means of (A, X, G) of both."""
    (a, x, g), (b, y, h) = means[:3], means[3:]
    return b / np.sqrt(h * y) - a / np.sqrt(g * x)
