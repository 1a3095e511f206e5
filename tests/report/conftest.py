"""Pages that many tests look at, made once."""

from __future__ import annotations

import pytest
import xarray as xr

from gradprobe.report import page
from tests.report.pages import hostile, ordinary


@pytest.fixture(scope="session")
def ds() -> xr.Dataset:
    return ordinary()


@pytest.fixture(scope="session")
def text(ds: xr.Dataset) -> str:
    return page.html(ds)


@pytest.fixture(scope="session")
def hostile_text() -> str:
    return page.html(hostile())
