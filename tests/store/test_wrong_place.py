"""A path that holds no run, results that are none: what is there instead, and where to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradprobe as gp
from gradprobe.report.looks import doctor_table
from gradprobe.report.wording import size_text
from gradprobe.store import export
from tests.problems_tiny import classifier
from tests.synthetic import make_run

SMALL = {"copies": 12, "block": 4, "seeds": 2}


def test_a_path_without_a_run_names_the_one_that_is_near(tmp_path: Path) -> None:
    gp.probe(classifier(), ["lr"], out=tmp_path / "figures" / "run", **SMALL)
    near = tmp_path / "figures" / "run"
    (tmp_path / "empty").mkdir()
    for given, said in (
        ("figures", f"it has no run.json; did you mean {near}."),
        ("figures/ruin", f"there is nothing of that name; did you mean {near}."),
        ("elsewhere", "there is nothing of that name; give the folder that --out or out= named."),
        ("empty", "it has no run.json; give the folder that --out or out= named."),
    ):
        with pytest.raises(gp.UsageError) as error:
            gp.open_run(tmp_path / given)
        assert str(error.value) == f"{tmp_path / given} is not a gradprobe run: {said}"


def test_a_file_of_something_else_is_named_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise gp.UsageError("netCDF files need an extra")

    monkeypatch.setattr(export, "_need_netcdf", missing)
    (tmp_path / "model.py").write_text("import torch")
    with pytest.raises(gp.UsageError, match="not a file that gradprobe exported; give the folder of a run"):
        gp.open_run(tmp_path / "model.py")


@pytest.mark.parametrize(
    "call",
    [gp.verdict, gp.plots.heatmap, lambda ds: gp.write_html(ds, "x.html")],
    ids=["verdict", "heatmap", "write_html"],
)
def test_what_a_statistic_made_is_no_run(
    call: Callable[[Any], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    law = gp.stats.alignment(make_run(np.random.default_rng(0)))
    with pytest.raises(gp.UsageError, match="not what a statistic made of them"):
        call(law)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(gp.UsageError, match=r"cannot write .*notes.figure: .*; choose another place\."):
        gp.plots.heatmap(make_run(np.random.default_rng(0)), save=tmp_path / "notes" / "figure")
    assert [f.name for f in tmp_path.iterdir()] == ["notes"]


def test_doctor_of_a_stored_run_has_layers_in_execution_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = OrderedDict(zed=nn.Linear(3, 4), act=nn.Tanh(), mid=nn.Linear(4, 4), end=nn.Linear(4, 2))
    batch = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    gp.probe(gp.Problem(nn.Sequential(layers), batch), ["lr"], out=tmp_path / "run", **SMALL)
    found = doctor_table(gp.open_run(tmp_path / "run"))
    assert found is not None
    assert list(found[1].index) == ["zed", "mid", "end"]


def test_one_copy_is_a_copy() -> None:
    assert size_text({"copies": 1, "seeds": 1}) == "1 copy x 1 seed"
    assert size_text({"copies": 1000, "seeds": 5}) == "1,000 copies x 5 seeds"
