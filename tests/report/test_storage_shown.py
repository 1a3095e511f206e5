"""Where signs were kept, the terminal, the tables and the page say what a copy took."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

import gradprobe as gp
from gradprobe.report.context import Context
from gradprobe.report.intermediates import intermediates, size
from gradprobe.report.sections import SECTIONS
from gradprobe.report.text import show, write
from tests.problems_tiny import classifier
from tests.report.pages import ordinary


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    methods = ["alr", "lr(sigma=0.1)", "alr(injection=joint)", "bp"]
    return gp.probe(classifier(), methods, copies=8, block=4, seeds=2, storage="bits")


def test_one_row_for_each_method_with_noise(ds: xr.Dataset) -> None:
    found = intermediates(ds).set_index("method")
    assert found.index.tolist() == ["alr", "lr(sigma=0.1)", "alr(injection=joint)"]
    assert found["layer"].tolist()[-1] == "all layers"
    assert found.loc["lr(sigma=0.1)", "times less"] == 1.0
    for method in found.index:
        plain = ds["plain_bytes"].sel(estimator=method, seed=0)
        most = plain.sum() if "joint" in method else plain.max()
        assert found.loc[method, "as numbers"] == float(most)
        assert found.loc[method, "as kept"] <= found.loc[method, "as numbers"]


def test_it_is_shown(ds: xr.Dataset, tmp_path: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    show(ds, console)
    assert "Intermediates of a copy" in console.export_text()
    files = {file.name: file for file in write(ds, tmp_path)}
    assert pd.read_csv(files["storage.csv"])["method"].tolist() == intermediates(ds)["method"].tolist()
    shown = str(SECTIONS.get("storage")(Context(ds, ds)))
    assert shown.count("<tr") == 1 + len(intermediates(ds))
    assert "all layers" in shown


def test_nothing_is_said_where_numbers_were_kept(tmp_path: Path) -> None:
    old = ordinary()
    assert not len(intermediates(old))
    assert not len(intermediates(gp.probe(classifier(), "alr", copies=8, block=4, seeds=1)))
    assert "storage.csv" not in {file.name for file in write(old, tmp_path)}


def test_sizes_are_written_short() -> None:
    found = [size(x) for x in (5, 1023, 1024, 20_000, 3 * 2**20, 2**32)]
    assert found == ["5 B", "1023 B", "1.0 KiB", "20 KiB", "3.0 MiB", "4.0 GiB"]
