"""From a labelled Dataset to moment arrays and back: the only place in this folder that knows labels.

Arrays are ``[estimator, part, seed, copies]``, where ``part`` is the parameter, the layer, the group of layers
or (length 1) the model. Moments are additive over parameters, so layers, groups and the model are sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from gradprobe.core.errors import UsageError, unknown
from gradprobe.stats._groups import Over, check_groups, group_layers
from gradprobe.stats._intervals import mean_se, t_quantile
from gradprobe.store.levels import level_mask, one_kind
from gradprobe.store.paths import check_probed

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

OVER = ("parameter", "layer", "model")
SCALES = ("raw", "unit-gain")
_DIMS = ("estimator", "parameter", "seed", "copies")
_ABOUT = ("color", "target", "stochastic", "summary", "sigma", "method")


@dataclass(frozen=True)
class Moments:
    """Moments of every estimator over parameters, layers, groups of layers or the model.

    Attributes:
        dot: <g_n, g>, ``[estimator, part, seed, copies]``; ``sqnorm`` and ``block_sqnorm`` alike.
        sqnorm: |g_n|^2.
        block_sqnorm: Mean of |B_k|^2 over the blocks so far.
        products: <g_N^(s), g_N^(t)>, N the last copies of each seed, ``[estimator, part, seed, other seed]``;
            NaN where it is not stored.
        reference: |g|^2 per seed, without bias if the reference is noisy, ``[estimator, part, seed]``.
        noisy: Whether the reference is noisy, ``[estimator, part]``.
        served: False where a layer was refused by the estimator in every seed, ``[estimator, part]``.
        stochastic: ``[estimator]``.
        copies: Stored numbers of copies, ``[copies]``.
        block: Copies in a block.
        coords: Coordinates of ``estimator``, ``part`` and ``seed`` for the results.
        facts: What was asked for: over, reference, scale, block.
    """

    dot: Array
    sqnorm: Array
    block_sqnorm: Array
    products: Array
    reference: Array
    noisy: Mask
    served: Mask
    stochastic: Mask
    copies: Array
    block: int
    coords: dict[str, Any]
    facts: dict[str, Any]

    def reference_sqnorm(self) -> Array:
        """|g|^2 averaged over seeds, ``[estimator, part, 1, 1]``; NaN where it is not positive."""
        mean = mean_se(self.reference)[0]
        return np.where(mean > 0, mean, np.nan)[..., None, None]

    def last(self) -> npt.NDArray[np.int64]:
        """Index of the last copies that every seed with data has reached, ``[estimator, part]``; -1: none."""
        reached = np.where(np.isfinite(self.sqnorm), np.arange(self.copies.size), -1).max(-1)
        least = np.where(reached >= 0, reached, self.copies.size).min(-1)
        return np.where((reached >= 0).any(-1), least, -1)

    def at(self, name: str, index: npt.NDArray[np.int64]) -> Array:
        """One moment at one number of copies per estimator and part, ``[estimator, part, seed]``."""
        values: Array = getattr(self, name)
        picked = np.take_along_axis(values, np.maximum(index, 0)[..., None, None], axis=-1)[..., 0]
        return np.where(index[..., None] >= 0, picked, np.nan)

    def label(self, values: npt.NDArray[Any], *trailing: str, **extra: Any) -> xr.DataArray:
        """Put names back.

        Args:
            values: ``[estimator, part, *trailing]``.
            *trailing: Names of the further axes ("seed", "copies").
            **extra: Attributes beyond what was asked for.
        """
        over = self.facts["over"]
        dims: tuple[str, ...] = ("estimator", over, *trailing)
        if over == "model":
            values, dims = values[:, 0], ("estimator", *trailing)
        coords = {k: v for k, v in self.coords.items() if (v[0] if isinstance(v, tuple) else k) in dims}
        if "copies" in dims:
            coords["copies"] = self.copies[: values.shape[dims.index("copies")]].astype(int)
        return xr.DataArray(values, dims=dims, coords=coords, attrs=self.facts | extra)


def moments(
    ds: xr.Dataset, over: Over, reference: str, scale: str = "raw", copies: int | None = None
) -> Moments:
    """Moments summed over parameters into layers, groups of layers or the model.

    A sum is NaN where one of its terms is (not there yet, failed); only for groups and the model, a layer that
    the estimator refused in every seed counts as a direction of zero: it adds nothing to ``dot`` and ``sqnorm``,
    and its |g|^2 counts. That norm is taken from the estimators that serve the layer; a layer that every
    estimator refuses is not probed and left out. So are levels of noise, unless a group or model has nothing else.

    Args:
        ds: Results (:mod:`gradprobe.store.schema`).
        over: ``parameter``, ``layer``, ``model``, or groups: name -> layers or patterns.
        reference: A name along ``ds.reference``.
        scale: ``raw``, or ``unit-gain`` (groups and model only; see :func:`_unit_gain`).
        copies: Where gains are estimated for ``unit-gain``; None: at the last stored copies.

    Raises:
        UsageError: A name is unknown, a pattern matches no layer, ``unit-gain`` is asked for within one layer,
            or the Dataset has lost a dimension.
    """
    _check(ds, over, reference, scale)
    found = _read(ds, reference)
    if over == "parameter":
        return replace(found, facts=found.facts | {"over": over, "scale": scale})
    order = ds["order"].values
    groups = [np.flatnonzero(order == o) for o in np.unique(order)]
    names = [str(ds["layer"].values[g[0]]) for g in groups]
    numel = [int(ds["numel"].values[g].sum()) for g in groups]
    coords = {"layer": names, "numel": ("layer", numel), "order": ("layer", np.unique(order))}
    layers = _sum(found, groups, _drop(found.coords, "parameter") | coords, {"over": "layer", "scale": scale})
    if over == "layer":
        return layers
    if scale == "unit-gain":
        layers = _unit_gain(layers, copies)
    levels = level_mask(ds)
    return _grouped(_zero_refused(layers), over, np.array([levels[g].all() for g in groups]))


def _grouped(layers: Moments, over: Over, levels: Mask) -> Moments:
    """Sums over groups of layers, or over all of them; levels of noise only where a sum has nothing else."""
    names = layers.coords["layer"]
    rest = _drop(layers.coords, "layer")
    if not isinstance(over, Mapping):
        return _sum(layers, [one_kind(np.arange(len(names)), levels)], rest, {"over": "model"})
    members = {name: one_kind(places, levels) for name, places in group_layers(names, over).items()}
    numel = [sum(layers.coords["numel"][1][i] for i in g) for g in members.values()]
    own: dict[str, Any] = {"group": list(members), "numel": ("group", numel)}
    own["layers"] = ("group", [", ".join(names[i] for i in g) for g in members.values()])
    return _sum(layers, list(members.values()), rest | own, {"over": "group"})


def _check(ds: xr.Dataset, over: Over, reference: str, scale: str) -> None:
    if isinstance(over, Mapping):
        check_groups(over)
    elif over not in OVER:
        raise unknown("over", over, OVER)
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    if scale == "unit-gain" and over in OVER[:2]:
        raise UsageError(
            f"scale='unit-gain' changes nothing within one {over} (a cosine has no length); "
            "use it with over='model' or with groups of layers."
        )
    check_probed(ds)
    check_dims(ds, "reference", *_DIMS)
    if "block" not in ds.attrs:
        raise UsageError("the results have lost attrs['block'] (copies in a block); open the run again.")
    if reference not in ds["reference"].values:
        raise unknown("reference", reference, [str(r) for r in ds["reference"].values])


def check_dims(ds: xr.Dataset, *dims: str) -> None:
    """Refuse results from which a single place was picked.

    Raises:
        UsageError: A dimension is gone.
    """
    for dim in dims:
        if dim not in ds.dims:
            raise UsageError(
                f"the results have no dimension {dim!r}; select with a list, ds.sel({dim}=[...])."
            )


def _read(ds: xr.Dataset, reference: str) -> Moments:
    def get(name: str, dims: Sequence[str] = _DIMS) -> Array:
        var = ds[name].sel(reference=reference) if "reference" in ds[name].dims else ds[name]
        return np.asarray(var.transpose(*dims).values, dtype=np.float64)

    total, per_block, blocks = (
        get(f"reference_{k}", _DIMS[:3]) for k in ("sqnorm", "block_sqnorm", "blocks")
    )
    with np.errstate(all="ignore"):
        unbiased = np.where(blocks > 1, (blocks * total - per_block) / (blocks - 1), total)
    coords: dict[str, Any] = {"estimator": [str(e) for e in ds["estimator"].values]}
    coords |= {k: ("estimator", ds[k].values) for k in _ABOUT if k in ds.coords and ds[k].ndim}
    coords |= {"parameter": ds["parameter"].values, "seed": ds["seed"].values}
    coords |= {k: ("parameter", ds[k].values) for k in ("layer", "numel", "order")}
    status = ds["status"].transpose(*_DIMS[:3]).values
    reached = np.isfinite(get("sqnorm")).sum(-1)
    least = np.where(status == "ok", reached, reached.max(initial=0) + 1).min(-1, keepdims=True)
    left_out = (status == "partial") & (status == "ok").any(-1, keepdims=True) & (reached < least)
    shown = {k: np.where(left_out[..., None], np.nan, get(k)) for k in ("dot", "sqnorm", "block_sqnorm")}
    return Moments(
        **shown,
        products=_products(ds),
        reference=unbiased,
        noisy=np.asarray((blocks > 1).any(-1)),
        served=np.asarray(~(status == "refused").all(-1)),
        stochastic=np.asarray(ds["stochastic"].values, dtype=bool),
        copies=np.asarray(ds["copies"].values, dtype=np.float64),
        block=int(ds.attrs["block"]),
        coords=coords,
        facts={"reference": reference, "block": int(ds.attrs["block"])},
    )


def _products(ds: xr.Dataset) -> Array:
    """``[estimator, parameter, seed, seed]`` for the seeds that were selected; NaN where nothing is stored."""
    stored = ds.get("seed_product")
    if stored is None or not stored.indexes.get("other_seed", pd.Index([0, 0])).is_unique:
        sizes = [ds.sizes[d] for d in _DIMS[:3]]
        return np.full([*sizes, sizes[-1]], np.nan)
    chosen = stored.reindex(other_seed=ds["seed"].values).transpose(*_DIMS[:3], "other_seed")
    return np.asarray(chosen.values, dtype=np.float64)


def _drop(coords: dict[str, Any], dim: str) -> dict[str, Any]:
    return {k: v for k, v in coords.items() if k != dim and not (isinstance(v, tuple) and v[0] == dim)}


def _sum(
    m: Moments, groups: list[npt.NDArray[np.int64]], coords: dict[str, Any], facts: dict[str, Any]
) -> Moments:
    arrays = ("dot", "sqnorm", "block_sqnorm", "products", "reference")
    sums: dict[str, Any] = {k: np.stack([getattr(m, k)[:, g].sum(1) for g in groups], axis=1) for k in arrays}
    flags: dict[str, Any] = {
        k: np.stack([getattr(m, k)[:, g].any(1) for g in groups], axis=1) for k in ("noisy", "served")
    }
    return replace(m, **sums, **flags, coords=coords, facts=m.facts | facts)


def _zero_refused(m: Moments) -> Moments:
    gone: Mask = np.asarray(~m.served)
    per_seed = mean_se(np.moveaxis(m.reference, 0, -1))[0]  # [layer, seed], over the estimators that have it
    any_seed = mean_se(per_seed)[0][:, None]
    borrowed = np.where(np.isfinite(per_seed), per_seed, any_seed)
    borrowed = np.where(np.asarray(gone.all(0))[:, None], 0.0, borrowed)
    reference = np.where(gone[..., None], borrowed, m.reference)
    zeroed: dict[str, Any] = {
        k: np.where(gone[..., None, None], 0.0, getattr(m, k))
        for k in ("dot", "sqnorm", "block_sqnorm", "products")
    }
    return replace(m, **zeroed, reference=reference)


def _unit_gain(m: Moments, copies: int | None) -> Moments:
    """Divide each layer's direction by its gain c = mean dot / |g|^2, pooled over seeds.

    NaN where the 95 % t interval of c over seeds is not wholly positive (for one seed: where c <= 0). A layer
    whose reference is zero contributes nothing.
    """
    last = m.last()
    index = last if copies is None else np.full_like(last, np.flatnonzero(m.copies == copies)[0])
    mean, se, count = mean_se(m.at("dot", index))
    norm = mean_se(m.reference)[0]
    low = np.where(count > 1, mean - t_quantile(0.975, count, least=2) * se, mean)
    with np.errstate(all="ignore"):
        weight = np.where(norm == 0, 0.0, np.where((low > 0) & (norm > 0), norm / mean, np.nan))
    w = weight[..., None, None]
    squares = {k: getattr(m, k) * w**2 for k in ("sqnorm", "block_sqnorm", "products")}
    return replace(m, dot=m.dot * w, **squares)
