"""sigma_sweep: one run with every sigma, and rounding that shows as it must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import gradprobe as gp
from gradprobe.estimators.perturbation import ES, LR
from tests.problems_tiny import classifier

SMALL = {"copies": 12, "block": 4, "seeds": 3, "reference_copies": 8}


def test_a_run_holds_every_method_at_every_sigma(tmp_path: Path) -> None:
    ds = gp.sigma_sweep(
        classifier(), ["lr", "es(antithetic=True)"], (0.1, 0.01), out=tmp_path / "run", **SMALL
    )
    labels = ["lr", "lr(sigma=0.1)", "es(antithetic=True)", "es(antithetic=True, sigma=0.1)"]
    assert list(ds["estimator"].values) == labels
    assert list(ds["sigma"].values) == [0.01, 0.1, 0.01, 0.1]
    assert list(ds["method"].values) == ["lr", "lr", "es(antithetic=True)", "es(antithetic=True)"]
    assert list(ds["reference"].values) == ["bp", "smoothed"]
    opened = gp.open_run(tmp_path / "run")
    xr.testing.assert_identical(opened["sigma"], ds["sigma"])
    found = gp.stats.against_sigma(opened)
    assert dict(found.sizes) == {"estimator": 2, "sigma": 2, "layer": 2, "part": 6}


def test_a_second_call_computes_the_new_sigmas_alone(tmp_path: Path) -> None:
    problem = classifier()
    first = gp.sigma_sweep(problem, "lr", (0.1,), out=tmp_path / "run", **SMALL)
    seen: list[tuple[int, int]] = []
    ds = gp.sigma_sweep(
        problem, "lr", (0.1, 0.5), out=tmp_path / "run", progress=lambda d, t, _: seen.append((d, t)), **SMALL
    )
    assert {total for _, total in seen} == {2 * 12 * 3}  # one sigma, two layers, three seeds
    assert list(ds["sigma"].values) == [0.1, 0.5]
    xr.testing.assert_equal(ds["dot"].isel(estimator=[0]), first["dot"])


def test_runs_made_by_hand_know_their_sigmas() -> None:
    labels = ["lr", "lr(sigma=0.3)", "hybrid(sigma=0.2)", "es(injection=joint, sigma=0.4)", "bp"]
    per_layer = LR(sigma={"first": 0.1, "last": 0.2})
    ds = gp.probe(classifier(), [*labels, per_layer], copies=8, block=4, seeds=1)
    np.testing.assert_array_equal(ds["sigma"], [0.01, 0.3, 0.2, 0.4, np.nan, np.nan])
    methods = ["lr", "lr", "hybrid", "es(injection=joint)", "bp", "lr"]
    assert list(ds["method"].values) == methods
    assert list(gp.stats.alignment(ds)["sigma"].values[:2]) == [0.01, 0.3]


def test_instances_are_swept_too() -> None:
    ds = gp.sigma_sweep(classifier(), [ES(noise="laplace")], [0.2, 0.2], **SMALL)
    assert list(ds["estimator"].values) == ["es(noise=laplace, sigma=0.2)"]


@pytest.mark.parametrize(
    ("estimators", "options", "words"),
    [
        ("bp", {}, "'bp' has no noise whose sigma"),
        ("lr(sigma=0.1)", {}, "has a sigma of its own"),
        ("lr(sigma={'first': 0.1, '*': 1})", {}, "varies one sigma for all layers"),
        (LR(sigma={"first": 0.1, "*": 1.0}), {}, "varies one sigma for all layers"),
        ("lr", {"sigmas": {"first": 0.1}}, "varies one sigma for all layers"),
        ("lr", {"sigma": 0.1}, r"as sigmas=\(...\), not sigma=0.1"),
        ("lr", {"sigmas": (0.1, 0)}, "each of sigmas must be a positive number, not 0"),
        ("lr", {"sigmas": "small"}, "must be a positive number, not 'small'"),
        ("lr", {"sigmas": ()}, "sigmas is empty"),
        ("lrr", {}, "Did you mean 'lr'"),
        ("lr", {"copis": 10}, "unknown option 'copis'"),
    ],
)
def test_careless_sweeps_get_one_sentence(
    estimators: object, options: dict, words: str, tmp_path: Path
) -> None:
    with pytest.raises(gp.UsageError, match=words) as caught:
        gp.sigma_sweep(classifier(), estimators, **({"sigmas": (0.1, 1.0)} | options), out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


SLOPE = np.array([0.5, -1.0, 0.25, 0.75])
HIGH = 1000.0


def steep(precision: str) -> gp.Problem:
    """One sample, loss 1000 + <slope, v>, v the output of a bias alone: known to 6e-5 in float32."""
    module = nn.Linear(1, 4)
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    slope = torch.tensor(SLOPE)
    return gp.Problem(
        module,
        (torch.zeros(1, 1), torch.zeros(1)),
        lambda v, _: HIGH + (v * slope.to(v.dtype)).sum(1),
        precision=precision,
    )


def half_power(sigma: float, kind: type) -> float:
    """tau/|mu|^2 of LR by its definition: 400,000 copies in numpy, the loss rounded to ``kind``."""
    eps = np.random.default_rng(0).standard_normal((400_000, 4))
    v = (sigma * eps).astype(kind)
    change = (kind(HIGH) + (v * SLOPE.astype(kind)).sum(1)).astype(np.float64) - HIGH
    copies = change[:, None] * eps / sigma
    mean = copies.mean(0)
    return float(((copies - mean) ** 2).sum(1).mean() / (mean @ mean))


def test_rounding_divided_by_sigma_is_noise_in_float32_and_gone_in_float64() -> None:
    """kappa is D + 1 = 5 without rounding, and what a loop in numpy says with it; the parts follow.

    10 seeds of 400 copies: kappa is known to about 5 % (s.e.), and its 95 % interval is widened threefold: false
    alarm below 1e-4 for each of six.
    """
    sigmas = (2e-5, 1e-4, 1e-1)
    found = {}
    for precision, kind in (("float32", np.float32), ("float64", np.float64)):
        ds = gp.sigma_sweep(
            steep(precision), "lr", sigmas, copies=400, block=20, seeds=10, reference_copies=4, engine="loop"
        ).sel(parameter=["bias"])
        law, parts = gp.stats.alignment(ds), gp.stats.against_sigma(ds, 20)
        for i, sigma in enumerate(sigmas):
            want = half_power(sigma, kind)
            value, low, high = (float(law["half_copies" + end][i, 0]) for end in ("", "_low", "_high"))
            assert value - 3 * (value - low) < want < value + 3 * (high - value)
            noise = parts["value"].sel(part="noise", sigma=sigma).item()
            assert noise == pytest.approx(1 - np.sqrt(20 / (20 + want)), abs=0.03)
            found[precision, sigma] = noise
        assert np.abs(parts["value"].sel(part="smoothing")).max() < 1e-6
    assert found["float32", 2e-5] > found["float32", 1e-4] + 0.02
    assert found["float32", 2e-5] > found["float64", 2e-5] + 0.02
    assert found["float32", 1e-1] == pytest.approx(found["float64", 1e-1], abs=0.01)
