"""Every registered estimator serves a function: as a problem, and along a descent."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe.estimators import ESTIMATORS
from gradprobe.estimators.base import make
from gradprobe.problems import FUNCTIONS
from gradprobe.problems.landscape import find_function


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_descends_and_is_probed(name: str) -> None:
    """What has parameters of its own in place of the model's descends nothing, and has no backprop reference."""
    own = make(name).estimator.own_layers
    with pytest.raises(gp.UsageError, match="does not serve a function") if own else nullcontext():
        path = gp.descend("booth", [name], start=(2.0, 2.0), steps=5, lr=1e-3, copies=4, seeds=2)
        assert bool(np.isfinite(path["loss"]).all())
    ds = gp.probe(find_function("booth").problem((2.0, 2.0)), [name], copies=40, block=10, seeds=2)
    reference = "smoothed" if own else "bp"
    assert bool(np.isfinite(gp.stats.cosine(ds, reference=reference)).all())


@pytest.mark.parametrize("name", FUNCTIONS.names())
def test_every_function_is_descended(name: str) -> None:
    path = gp.descend(name, ["bp", "lr", "alr"], steps=3, lr=1e-6, copies=4, seeds=2)
    assert bool(np.isfinite(path["loss"]).all())
    assert path["surface"].shape == (201, 201)
    start = torch.tensor(find_function(name).start, dtype=torch.float64)
    assert float(path["loss"].isel(estimator=0, seed=0, step=0)) == pytest.approx(
        float(find_function(name).values(start))
    )


def test_a_function_of_one_s_own_in_two_lines() -> None:
    path = gp.descend(lambda p: (p**2).sum(), start=(1.0, 2.0, 3.0, 4.0), steps=20, lr=0.05, seeds=2)
    assert list(path["coordinate"].values) == ["x", "y", "z", "u"]
    assert "surface" not in path
    assert float(path["loss"].sel(estimator="bp").isel(seed=0, step=-1)) == pytest.approx(30 * 0.9**40)
