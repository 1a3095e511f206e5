"""Settings of all tests: one thread, here and in what they start, and registries that a test leaves as they were."""

import gc
import importlib
import os

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator

import pytest
import torch

from gradprobe.checkup import CHECKS
from gradprobe.engine.noise import NOISE
from gradprobe.estimators import ESTIMATORS
from gradprobe.layers import RULES
from gradprobe.problems import FUNCTIONS

torch.set_num_threads(1)


SHARED = (
    "test_law.py",
    "test_kill.py",
    "test_doctests.py",
    "test_html.py",
    "test_html_browser.py",
    "test_kernel.py",
)
"""Files whose tests share something that takes long to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is shared: workers steal from the end of each other's lists, and would make it twice."""
    items.sort(key=lambda item: item.path.name not in SHARED)


def pytest_collection_finish() -> None:
    """Take what is there out of garbage collection: thousands of tests, which each run would look through."""
    importlib.import_module("hypothesis")  # before: it asks the collector who holds trio's generator
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unchanged_registries() -> Iterator[None]:
    """Forget what a test registered: later tests and their workers would meet it."""
    before = {registry: set(registry.names()) for registry in (ESTIMATORS, NOISE, RULES, FUNCTIONS, CHECKS)}
    yield
    for registry, names in before.items():
        for name in set(registry.names()) - names:
            del registry._entries[name]
