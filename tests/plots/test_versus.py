"""The figure of paired differences shows the statistics' numbers, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from tests.paths import make_path


@pytest.fixture(scope="module")
def paths() -> dict[str, xr.Dataset]:
    return {"calm": make_path(seeds=6, noise=0.5), "wild": make_path(seeds=6, noise=4.0, starts=3)}


def of_kind(axes: mpl.axes.Axes, kind: str) -> list[mpl.lines.Line2D]:
    return [a for a in axes.get_lines() if a.get_gid() == kind]


@pytest.mark.parametrize("stay", [False, True])
def test_rows_are_those_of_stats(paths: dict[str, xr.Dataset], stay: bool) -> None:
    figure = plots.versus(paths, "alr", "lr", stay=stay)
    shares, *contests = figure.axes
    assert [t.get_text() for t in shares.get_yticklabels()] == ["calm", "wild"]
    drawn = [line.get_xdata()[0] for line in of_kind(shares, "value")]
    want = [stats.success(path, stay=stay)["rate"].values for path in paths.values()]
    np.testing.assert_allclose(drawn, np.concatenate(want))
    for axes, name in zip(contests, ("success", "earlier", "lower"), strict=True):
        found = [stats.difference(path, "alr", "lr", stay=stay) for path in paths.values()]
        np.testing.assert_allclose(
            [p.get_xdata()[0] for p in of_kind(axes, "value")], [d[name] for d in found]
        )
        ends = [[d[f"{name}_low"], d[f"{name}_high"]] for d in found]
        np.testing.assert_allclose([p.get_xdata() for p in of_kind(axes, "interval")], ends)
        low, high = axes.get_xlim()
        assert low <= np.min(ends) or low == -1
        assert high >= np.max(ends) or high == 1
    assert ("stay there through the last tenth of the steps" in figure.gradprobe_caption) == stay
    assert shares.get_xlabel() == f"share of walkers\nthat {'stay' if stay else 'reach'}"


def test_caption_says_what_became_of_each_row() -> None:
    calm = make_path(seeds=6).assign_attrs(constant_input=0)
    wild = make_path(seeds=6, starts=3, diverge={("lr", 1, 2): 5}).assign_attrs(bounds="project", copies=4)
    caption = plots.versus({"calm\nsea": calm, "wild": wild}, "alr", "lr").gradprobe_caption
    assert "\n" not in caption
    assert "come within 0.0532 of it" in caption
    calm_row, wild_row = caption.partition("calm sea: ")[2].split(" wild: ", 1)
    for part in ("16 copies of noise a step, sigma 1.", "No bounds", "None diverged."):
        assert part in calm_row
    for part in ("from 3 starts", "4 copies", "Bounds: project.", "1 of 18 walkers of lr diverged."):
        assert part in wild_row
    assert "wild: The variables are the weights" in caption  # a caution that is not of the first row
    assert caption.count("alr carries no 1/sigma") == 1


def test_rows_share_sentences_and_may_differ_in_radius() -> None:
    paths = {"plane": make_path(seeds=6), "space": make_path(seeds=6, dims=3)}
    caption = plots.versus(paths, "alr", "lr").gradprobe_caption
    for part in ("within the radius of their row", "Radius 0.0532.", "Radius 0.0665."):
        assert part in caption
    assert caption.partition("All rows: ")[2].count("None diverged.") == caption.count("None diverged.") == 1


@pytest.mark.parametrize("width", ["single", "double"])
def test_files_and_record(paths: dict[str, xr.Dataset], width: str, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plots.versus(paths, "lr", "bp", width=width, save=tmp_path / "deep" / "answer")
    assert dict(mpl.rcParams) == before
    assert {f.name for f in (tmp_path / "deep").iterdir()} == {f"answer.{k}" for k in ("png", "pdf", "json")}
    record = json.loads((tmp_path / "deep" / "answer.json").read_text())
    assert [row["row"] for row in record["rows"]] == ["calm", "wild"]
    assert (
        record["rows"][0]["difference"]["success"] == stats.difference(paths["calm"], "lr", "bp")["success"]
    )


def test_what_is_no_comparison_is_refused(paths: dict[str, xr.Dataset]) -> None:
    with pytest.raises(UsageError, match="paths by name"):
        plots.versus({}, "alr", "lr")
    with pytest.raises(UsageError, match="unknown estimator 'es'"):
        plots.versus(paths, "es", "lr")
    with pytest.raises(UsageError, match="needs the path"):
        plots.versus({"x": xr.Dataset()}, "alr", "lr")
