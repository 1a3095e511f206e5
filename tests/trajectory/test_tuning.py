"""The chosen rate against a loop over rates that are run alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradprobe as gp
from gradprobe import UsageError
from gradprobe.estimators.base import make
from gradprobe.problems.landscape import Function, find_function
from gradprobe.trajectory.descents import descents
from gradprobe.trajectory.request import Request, find_starts
from gradprobe.trajectory.stepping import find_optimizer
from gradprobe.trajectory.tuning import tuning_starts
from gradprobe.trajectory.walk import Rules

RATES = [0.3, 1e-4, 1e-2, 1e-3]


def scores(spec, criterion, starts, steps, seeds):
    function = find_function("booth")
    request = Request(function, find_starts(function, starts), list(range(seeds)), 8, 5)
    request = replace(request, starts=tuning_starts(request))
    every = max(steps // 200, 1) if criterion == "steps" else 1
    rules = Rules(find_optimizer("sgd")[1], steps, every=every)
    low, high = np.array(function.domain).T
    radius = 0.01 * np.linalg.norm(high - low)
    out = []
    for rate in sorted(RATES):
        walked = descents(request, make(spec, {"sigma": 0.1}), [rate], rules, "tuning")
        each = []
        for positions, losses in zip(
            walked.values["position"].numpy(), walked.values["loss"].numpy(), strict=True
        ):
            if criterion == "loss":
                each.append(losses[-1] if np.isfinite(losses).all() else np.inf)
                continue
            stays = 2.0 * steps
            for step, p in reversed(list(zip(rules.recorded, positions, strict=True))):
                if not np.hypot(p[0] - 1, p[1] - 3) <= radius:
                    break
                stays = step
            each.append(stays if stays <= 0.9 * steps else 2.0 * steps)
        out.append(np.median(each) if criterion == "loss" else np.mean(each))
    return np.array(out)


@pytest.mark.parametrize("criterion", ["loss", "steps"])
@pytest.mark.parametrize(
    ("starts", "steps"), [([(-6.0, -4.0), (5.0, 5.0)], 60), ([(-6.0, -4.0)], 60), ([(-6.0, -4.0)], 400)]
)
def test_the_best_rate(criterion, starts, steps):
    path = gp.descend(
        "booth",
        ["bp", "lr"],
        start=starts,
        steps=steps,
        lr="tuned",
        rates=RATES,
        criterion=criterion,
        tuning_seeds=2,
        seeds=2,
        copies=8,
        sigma=0.1,
        root_seed=5,
    )
    assert path.rate.values.tolist() == sorted(RATES)
    edges = []
    for e, spec in enumerate(("bp", "lr")):
        want = scores(spec, criterion, starts, steps, 2)
        np.testing.assert_allclose(path.tuning_score.values[e], want, rtol=1e-9)
        assert path.lr.values[e] == sorted(RATES)[int(np.argmin(want))]
        edges += [path.estimator.values[e]] if path.lr.values[e] in (1e-4, 0.3) else []
    about = json.loads(path.attrs["tuning"])
    assert about == {"seeds": 2, "criterion": criterion, "steps": steps, "at_edge": edges}
    lr = dict(zip(path.estimator.values.tolist(), path.lr.values.tolist(), strict=True))
    again = gp.descend(
        "booth", ["bp", "lr"], start=starts, steps=steps, lr=lr, seeds=2, copies=8, sigma=0.1, root_seed=5
    )
    np.testing.assert_array_equal(path.position.values, again.position.values)


def test_starts_of_tuning_are_others_within_the_same_box():
    function = find_function("booth")
    request = Request(function, find_starts(function, [(-6.0, -4.0), (5.0, 5.0), (0.0, 1.0)]), [0], 8, 5)
    found = tuning_starts(request).numpy()
    assert found.shape == (25, 2)
    assert ((found > [-6, -4]) & (found < [5, 5])).all()
    np.testing.assert_array_equal(found, tuning_starts(request).numpy())
    assert not np.array_equal(found, tuning_starts(replace(request, root_seed=6)).numpy())
    half = Function("half", lambda x, y: (x - y).sqrt(), (1.0, 0.0))
    request = Request(half, torch.tensor([[1.0, 0.0], [5.0, 4.0]], dtype=torch.float64), [0], 8, 5)
    assert 0 < len(tuning_starts(request)) < 25  # those where the function is finite


def test_edges_are_reported():
    path = gp.descend("booth", "bp", steps=20, lr="tuned", rates=[1e-5, 1e-4], seeds=1)
    assert json.loads(path.attrs["tuning"])["at_edge"] == ["bp"]


def test_no_rate_works():
    with pytest.raises(UsageError, match="diverges at every learning rate from 1000 to"):
        gp.descend("beale", "bp", steps=20, lr="tuned", rates=[1e3, 1e4], seeds=1)
