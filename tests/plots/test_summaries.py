"""One-liners of everything that is registered."""

from __future__ import annotations

import pytest

from gradprobe.core.registry import Registry
from gradprobe.engine.noise import NOISE
from gradprobe.estimators import ESTIMATORS
from gradprobe.layers import RULES
from gradprobe.plots import PLOTS
from gradprobe.problems import DATASETS, FUNCTIONS, NETWORKS
from gradprobe.stats import STATISTICS

ALL = (ESTIMATORS, NETWORKS, DATASETS, FUNCTIONS, NOISE, RULES, STATISTICS, PLOTS)


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_summaries_are_text_that_nothing_is_left_to_fill_in(registry: Registry) -> None:
    for entry in registry:
        assert entry.summary
        assert not set("{}\n") & set(entry.summary), entry.name


@pytest.mark.parametrize("entry", list(ESTIMATORS), ids=lambda entry: entry.name)
def test_every_method_says_its_formula_where_it_is_from_and_where_it_stands(entry) -> None:
    assert entry.meta["formula"]
    assert entry.meta["source"]
    assert sum(other.meta["order"] == entry.meta["order"] for other in ESTIMATORS) == 1
