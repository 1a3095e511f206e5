"""Ends near stable points are counted as a loop over walkers counts them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from gradprobe import stats
from gradprobe.core.errors import UsageError
from tests.paths import make_path

STOPS = [  # field, x, y, stable, on the edge
    ("gradient", 1.0, 0.0, True, False),
    ("gradient", 0.0, 0.0, False, False),
    ("lr", 0.9, 0.05, True, False),
    ("alr", -0.5, 0.0, True, False),
    ("alr", -1.5, 0.0, True, True),
]


def make_stops(path: xr.Dataset) -> xr.Dataset:
    """A field of which only the stable points matter."""
    names, x, y, stable, edge = zip(*STOPS, strict=True)
    return xr.Dataset(
        {"zero_position": (("zero", "coordinate"), np.stack([x, y], 1))},
        {
            "field": ["gradient", "lr", "alr"],
            "how": ("field", ["exact", "integrated", "integrated"]),
            "zero_field": ("zero", list(names)),
            "stable": ("zero", list(stable)),
            "boundary": ("zero", list(edge)),
        },
        {"kind": "field", "function": path.attrs["function"]},
    )


def near(end: np.ndarray, field: str, radius: float, projected: bool) -> tuple[bool, float]:
    distances = [
        float(np.hypot(*(end - [x, y])))
        for name, x, y, stable, edge in STOPS
        if name == field and stable and (projected or not edge)
    ]
    least = min(distances, default=np.inf)
    least = np.inf if np.isnan(least) else least
    return least <= radius, least


@pytest.mark.parametrize("starts", [1, 4])
@pytest.mark.parametrize("bounds", ["none", "project"])
@pytest.mark.parametrize("radius", [None, 0.3])
def test_shares_and_distances(starts: int, bounds: str, radius: float | None) -> None:
    path = make_path(starts=starts, seeds=5, noise=0.3, diverge={("lr", 0, 2): 10})
    path = path.assign_attrs(bounds=bounds)
    found = stats.settled(path, make_stops(path), radius)
    used = 0.01 * np.hypot(3.5, 4.0) if radius is None else radius
    assert found.attrs["radius"] == pytest.approx(used)
    for label in ("bp", "lr", "alr"):
        ends = path["position"].sel(estimator=label).isel(step=-1).values.reshape(-1, 2)
        for name, field in (("own", "gradient" if label == "bp" else label), ("gradient", "gradient")):
            rows = [near(end, field, used, bounds == "project") for end in ends]
            assert float(found[name].sel(estimator=label)) == pytest.approx(np.mean([r[0] for r in rows]))
            middle = sorted(r[1] for r in rows)[(len(rows) - 1) // 2]
            assert float(found[f"{name}_distance"].sel(estimator=label)) == pytest.approx(middle)


def test_zeros_that_were_not_looked_for_are_not_missed() -> None:
    path = make_path(seeds=5, noise=0.3)
    field = make_stops(path)
    field["how"] = ("field", ["exact", "sampled", "integrated, not converged"])
    found = stats.settled(path, field)
    assert np.isnan(found[["own", "own_distance"]].sel(estimator=["lr", "alr"]).to_array()).all()
    assert np.isfinite(found["gradient"]).all()
    assert np.isfinite(found["own"].sel(estimator="bp"))
    field["how"] = ("field", ["unknown", "integrated", "integrated"])
    found = stats.settled(path, field)
    assert np.isnan(found[["gradient", "gradient_distance"]].to_array()).all()
    assert np.isnan(found["own"].sel(estimator="bp"))
    assert np.isfinite(found["own"].sel(estimator=["lr", "alr"])).all()


def test_what_does_not_belong_together_is_refused() -> None:
    path = make_path()
    field = make_stops(path)
    with pytest.raises(UsageError, match="same function"):
        stats.settled(path, field.assign_attrs(function="other"))
    with pytest.raises(UsageError, match="has a field among"):
        stats.settled(path.sel(estimator=["lr"]), field.sel(field=["gradient"]))
    with pytest.raises(UsageError, match="alr has no field"):
        stats.settled(path, field.sel(field=["gradient", "lr"]))
    with pytest.raises(UsageError, match="needs the field"):
        stats.settled(path, path)
    with pytest.raises(UsageError, match="give radius="):
        stats.settled(make_path(domain=False), field)
