"""What users get wrong gets one sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from gradprobe import stats
from gradprobe.core.errors import UsageError
from gradprobe.stats._allocators import neyman
from tests.synthetic import Truth, make_run

RUN = make_run(np.random.default_rng(0), estimators={"lr": Truth(), "es": Truth(1.0, 300.0)}, products=True)
BOTH = make_run(np.random.default_rng(0), estimators={"lr": Truth()}, noisy_blocks=8, reference_noise=0.01)


@pytest.mark.parametrize("given", ["x", "3", None, True, [], [1, -1], [[1, 2]], np.nan, ["a"], [[1], [2, 3]]])
def test_copies_and_costs_are_positive_numbers(given: object) -> None:
    law = stats.alignment(RUN)
    asked = [lambda: stats.predict(law, given), lambda: stats.theory(10, given)]
    asked += [lambda: stats.frontier(RUN, costs=given)] if given is not None else []
    asked += [lambda: stats.decompose(BOTH, given)] if given is not None else []
    for call in asked:
        with pytest.raises(UsageError, match="must be a positive number or a list of them") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("over", [3, ["conv1"], ("model",), None, {"a": []}, {1: "fc"}])
def test_over_is_a_name_or_groups(over: object) -> None:
    for call in (stats.cost, stats.frontier, stats.alignment, stats.goodness_of_fit):
        with pytest.raises(UsageError) as error:
            call(RUN, over=over)
        assert "\n" not in str(error.value)


def test_results_that_have_lost_a_dimension() -> None:
    with pytest.raises(UsageError, match="no dimension 'estimator'"):
        stats.plan(RUN.isel(estimator=0), 0.5)
    for dim in ("seed", "copies"):
        with pytest.raises(UsageError, match=f"no dimension '{dim}'"):
            stats.decompose(BOTH.isel({dim: 0}))


def test_methods_are_names() -> None:
    for given in (3, [3], [None]):
        with pytest.raises(UsageError, match="must be a name or a list of names"):
            stats.plan(RUN, 0.5, methods=given)


def test_no_warning_for_equal_variances_nor_for_a_joint_draw_layer_by_layer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (3, 7, 11, 49):
            assert (neyman(np.full(size, 0.1), size) == 1).all()
        joint = make_run(
            np.random.default_rng(0), estimators={"es": Truth({"conv1": 0.5, "conv2": 1.0, "fc": 0.3})}
        )
        with pytest.raises(UsageError, match="in layer"):
            stats.plan(joint, 0.95, every_layer=True)
