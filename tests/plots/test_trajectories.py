"""Figures of paths and fields: what they draw, judged by structure and by the numbers of gradprobe.stats."""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots import _surface
from gradprobe.plots.basin_figure import color_of, starts_grid
from gradprobe.stats.basin import most_frequent
from tests.paths import VALUE, make_path

SIX = ("bp", "lr", "alr", "es", "aes", "hybrid")


@pytest.fixture(scope="module")
def path() -> xr.Dataset:
    return make_path(seeds=7, diverge={("lr", 0, 2): 5, ("alr", 0, 1): 9, ("alr", 0, 3): 20})


@pytest.fixture(scope="module")
def figure(path: xr.Dataset) -> Figure:
    return plots.trajectory(path)


@pytest.fixture(scope="module")
def grid() -> xr.Dataset:
    """Descents from four by three starts, in an order that is not the grid's."""
    ds = make_path(starts=12, seeds=5, steps=10, diverge={("lr", 3, s): 4 for s in range(5)})
    x, y = np.meshgrid([-1.2, -0.4, 0.6, 1.6], [-1.5, 0.0, 1.5])
    spots = np.stack([x.ravel(), y.ravel()], -1)[np.random.default_rng(3).permutation(12)]
    ds["start_position"].values[:] = spots
    ds["position"] = ds["position"] * 0 + xr.DataArray(
        np.where(spots[:, :1] > 0, [1.0, 0.0], [-0.5, 0.0]), dims=("start", "coordinate")
    )
    ds["position"].loc[{"estimator": "alr", "start": 0, "seed": [0, 1]}] = 1.9
    return ds


def make_field(path: xr.Dataset) -> xr.Dataset:
    """The gradient of a bowl, the same shifted for lr, and one that is only noise for alr."""
    points = np.stack(np.meshgrid(path["x"].values, path["y"].values), -1)
    vector = np.stack([points, points - [0.5, 0.25], points * 0.01])
    dims = ("field", "y", "x", "coordinate")
    return xr.Dataset(
        {
            "vector": (dims, vector),
            "error": (dims, np.stack([vector[0] * 0, vector[1] * 0, np.ones_like(points)])),
            "surface": path["surface"].rename(x="surface_x", y="surface_y"),
            "minimum_position": path["minimum_position"],
            "zero_position": (
                ("zero", "coordinate"),
                np.array([[0.0, 0.0], [0.5, 0.25], [-1.0, 1.0], [2.0, 0.5]]),
            ),
        },
        {
            "field": ["gradient", "lr", "alr"],
            "x": path["x"].values,
            "y": path["y"].values,
            "color": ("field", ["#0072B2", "#E69F00", "#009E73"]),
            "sigma": ("field", [np.nan, 0.5, 0.5]),
            "how": ("field", ["exact", "integrated", "sampled"]),
            "zero_field": ("zero", ["gradient", "lr", "lr", "lr"]),
            "stable": ("zero", [True, True, False, True]),
            "boundary": ("zero", [False, False, False, True]),
        },
        {"kind": "field", "function": "two wells", "source": "tests", "sigma": 0.5}
        | {"domain": path.attrs["domain"]},
    )


def drawn(axes: Axes, kind: str) -> list:
    return [a for a in axes.get_children() if a.get_gid() == kind]


def named(axes: Axes, kind: str, label: str):
    return next(a for a in drawn(axes, kind) if a.get_label() == label)


def legend_texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.legends[0].get_texts()]


# ---- trajectory


def test_map_has_every_method_s_path_of_the_first_seed(path: xr.Dataset, figure: Figure) -> None:
    axes = figure.axes[0]
    for label, color in zip(path["estimator"].values, path["color"].values, strict=True):
        line = named(axes, "path", label)
        np.testing.assert_array_equal(line.get_xydata(), path["position"].sel(estimator=label, seed=0).values)
        assert line.get_color() == color
        end = named(axes, "end", f"_end of {label}")
        np.testing.assert_array_equal(
            end.get_xydata()[0], path["position"].sel(estimator=label, seed=0)[-1].values
        )
    np.testing.assert_array_equal(drawn(axes, "start")[0].get_xydata()[0], path["start_position"].values)
    assert drawn(axes, "start")[0].get_markerfacecolor() == "white"


def test_methods_differ_by_marker_and_dashes(figure: Figure) -> None:
    for axes, kind in zip(figure.axes, ("path", "median"), strict=True):
        lines = drawn(axes, kind)
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == 3
    assert len({line.get_marker() for line in drawn(figure.axes[0], "end")}) == 3


def test_other_seeds_are_thin_and_one_picture(path: xr.Dataset, figure: Figure) -> None:
    (others,) = drawn(figure.axes[0], "others")
    assert others.get_rasterized()
    lines = others.get_paths()
    assert len(lines) == 2 * 6  # not of the deterministic one
    np.testing.assert_array_equal(lines[0].vertices, path["position"].sel(estimator="lr", seed=1).values)
    np.testing.assert_array_equal(lines[-1].vertices, path["position"].sel(estimator="alr", seed=6).values)


def test_chosen_seed_and_start() -> None:
    ds = make_path(seeds=3, starts=3).assign_coords(seed=[10, 20, 30])
    axes = plots.trajectory(ds, seed=20, start=2).axes[0]
    want = ds["position"].sel(estimator="lr", seed=20, start=2).values
    np.testing.assert_array_equal(named(axes, "path", "lr").get_xydata(), want)
    np.testing.assert_array_equal(drawn(axes, "start")[0].get_xydata()[0], ds["start_position"].values[2])


def test_minima_and_frame(path: xr.Dataset, figure: Figure) -> None:
    axes = figure.axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1.5, 2.0), (-2.0, 2.0))
    np.testing.assert_array_equal(drawn(axes, "global minima")[0].get_xydata(), [[1.0, 0.0]])
    np.testing.assert_array_equal(drawn(axes, "local minima")[0].get_xydata(), [[-0.5, 0.0]])
    assert {"global minimum", "local minimum", "start", "other seeds"} < set(legend_texts(figure))


@pytest.mark.parametrize("x", ["forwards", "steps"])
def test_curves_and_bands_are_those_of_stats(path: xr.Dataset, x: str) -> None:
    figure = plots.trajectory(path, x=x)
    axes, want = figure.axes[1], stats.progress(path)
    bands = drawn(axes, "band")
    assert len(bands) == 2
    for label in path["estimator"].values:
        line, at = named(axes, "median", label), want.sel(estimator=label)
        np.testing.assert_array_equal(line.get_ydata(), at["loss"].values - VALUE)
        np.testing.assert_array_equal(line.get_xdata(), at["forwards" if x == "forwards" else "step"].values)
    heights = bands[0].get_paths()[0].vertices[:, 1]
    low, high = (want[k].sel(estimator="lr").values - VALUE for k in ("loss_low", "loss_high"))
    assert set(low) <= set(heights)
    assert set(high[np.isfinite(high)]) <= set(heights)
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "loss − minimum"
    assert "median, 10–90 % of seeds" in legend_texts(figure)


def test_a_median_that_diverged_leaves_through_the_top() -> None:
    ds = make_path(seeds=5, diverge={("lr", 0, s): 10 for s in range(4)})
    for log in (True, False):
        axes = plots.trajectory(ds, log=log).axes[1]
        heights = named(axes, "median", "lr").get_ydata()
        assert np.isfinite(heights).all()
        assert (heights[10:] > axes.get_ylim()[1]).all()


def test_unknown_minimum() -> None:
    figure = plots.trajectory(make_path(minima=False))
    assert figure.axes[1].get_yscale() == "linear"  # losses are negative
    assert figure.axes[1].get_ylabel() == "loss"
    assert not drawn(figure.axes[0], "global minima")
    assert "evenly spaced from" in figure.gradprobe_caption


def test_levels() -> None:
    x = np.linspace(-1, 1, 101)
    bowl = x**2 + x[:, None] ** 2
    at, base = _surface.levels(bowl - 2, -2.0)
    assert base == -2.0
    np.testing.assert_allclose(np.diff(np.log(at - base)), np.log((at - base)[1] / (at - base)[0]))
    assert _surface.levels(bowl, None)[1] is None
    assert _surface.levels(10 + 0.1 * bowl, 0.0)[1] is None  # a small range
    assert _surface.levels(np.exp(8 * bowl) + 5, None)[1] == 6.0  # skewed: above the grid's lowest
    for empty in (np.full((3, 3), np.nan), np.ones((3, 3))):
        assert (np.diff(_surface.levels(empty, None)[0]) > 0).all()


@pytest.mark.parametrize("dims", [1, 3])
def test_other_numbers_of_variables_have_no_map(dims: int) -> None:
    figure = plots.trajectory(make_path(dims=dims))
    assert len(figure.axes) == 1
    assert drawn(figure.axes[0], "median")
    assert "start" not in legend_texts(figure)
    assert "frame" not in figure.gradprobe_caption


def test_caption_hides_nothing(path: xr.Dataset, figure: Figure) -> None:
    for part in (
        "two wells from (1.8, 1.5)",
        "optimiser sgd",
        "learning rate 0.02 for all",
        "16 copies",
        "sigma 1",
        "7 seeds",
        "No bounds, clipping or decay",
        "1 of 7 walkers of lr, 2 of alr diverged",
        "LR is ES and ALR is AES",
        "does not count its backward pass",
        "alr carries no 1/sigma: at one common learning rate its steps are shorter by a factor of 0.798.",
    ):
        assert part in figure.gradprobe_caption


def test_caption_follows_the_facts(path: xr.Dataset) -> None:
    facts = {"step_rule": "normalised", "clip": 5.0, "constant_input": 0}
    ds = make_path(estimators=("lr", "alr"), tuned=True).assign_attrs(facts)
    ds["lr"].values[:] = [0.1, 0.2]
    ds["lost"].values[1, 0] = 3
    caption = plots.trajectory(ds).gradprobe_caption
    for part in (
        "0.1 (lr), 0.2 (alr), tuned for each method",
        "Tuning: of 5 rates from 0.005 to 0.08, that with the lowest median of the last loss, over 5 other seeds.",
        "What tuning spent is not counted.",
        "normalised to length 1",
        "Directions clipped at 5",
        "counted as 0: 3 (alr)",
        "None diverged",
    ):
        assert part in caption
    for part in ("LR is ES", "backward pass", "1/sigma", "at an end"):
        assert part not in caption
    assert "What tuning spent" not in plots.trajectory(ds, x="steps").gradprobe_caption


@pytest.mark.parametrize(
    "facts", [{"optimizer": "adam"}, {"clip": 2.0}, {"step_rule": "normalised"}, {"lr_rule": "tuned"}]
)
def test_lengths_are_compared_only_where_steps_keep_them(facts: dict) -> None:
    path = make_path(estimators=("lr", "alr"), dims=1)
    said = plots.trajectory(path.assign_attrs(optimizer="sgd(momentum=0.9)")).gradprobe_caption
    assert "alr carries" in said
    assert "lr carries" not in said.replace("alr", "")
    for other in (path.assign_attrs(facts), path.assign(lr=path["lr"] * [1, 2]), path.drop_vars("shrinks")):
        assert "1/sigma" not in plots.trajectory(other).gradprobe_caption


def test_caption_names_rates_at_an_end_and_steps_left_out() -> None:
    path = make_path(tuned=True, every=10, dims=1)
    about = {"seeds": 1, "steps": 40, "criterion": "steps", "at_edge": ["lr", "alr"]}
    path.attrs["tuning"] = json.dumps(about)
    caption = plots.reached(path, stay=True).gradprobe_caption
    for part in (
        "stay at a global minimum (twice the steps for one that does not), over 1 other seed.",
        "The rates of lr and alr lie at an end of the rates tried.",
        "40 steps (one in 10 and the last recorded)",
        "What walkers do between two recorded steps is not seen.",
        "and stay there through the last tenth of the steps",
    ):
        assert part in caption


def test_walkers_that_leave_are_counted() -> None:
    ds = make_path(seeds=6)
    ds["position"].values[1, :4, 7] = [50.0, 1e200]
    figure = plots.trajectory(ds)
    figure.draw_without_rendering()
    assert "4 of 6 walkers of lr were outside the frame" in figure.gradprobe_caption
    assert [m["left"] for m in figure.gradprobe_record["methods"]] == [0, 4, 0]
    assert figure.axes[0].get_xlim() == (-1.5, 2.0)


def test_a_start_outside_the_domain_is_shown() -> None:
    ds = make_path().assign_attrs(domain="[[-1.0, 1.0], [-1.0, 1.0]]")
    assert plots.trajectory(ds).axes[0].get_xlim() == (-1.5, 2.0)


def overlaps(one, other) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def draw_each(path: xr.Dataset, grid: xr.Dataset, width: str | float) -> list[Figure]:
    many = make_path(estimators=SIX, seeds=3)
    return [
        plots.trajectory(path, width=width),
        plots.trajectory(many, width=width),
        plots.trajectory(make_path(estimators=("lr",), seeds=1, dims=3), width=width),
        plots.reached(many, width=width),
        plots.basins(grid, width=width),
        plots.fields(make_field(path), path, width=width),
    ]


@pytest.mark.parametrize("width", ["double", "single"])
def test_nothing_covers_anything(path: xr.Dataset, grid: xr.Dataset, width: str) -> None:
    for figure in draw_each(path, grid, width):
        figure.draw_without_rendering()
        renderer, page = figure._get_renderer(), figure.bbox
        boxes = [figure.legends[0].get_window_extent(renderer)]
        boxes += [a.get_tightbbox(renderer) for a in figure.axes]
        for i, box in enumerate(boxes):
            assert page.x0 - 1 <= box.x0
            assert box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0
            assert box.y1 <= page.y1 + 1
            assert not any(overlaps(box, other) for other in boxes[:i])


# ---- reached


def test_reached_is_that_of_stats(path: xr.Dataset) -> None:
    figure = plots.reached(path, radius=0.4)
    want = stats.progress(path, radius=0.4)
    assert [a.get_xlabel() for a in figure.axes] == ["steps", "forward evaluations"]
    for axes in figure.axes:
        for label in path["estimator"].values:
            line = named(axes, "share", label)
            np.testing.assert_array_equal(line.get_ydata(), want["reached"].sel(estimator=label).values)
            assert line.get_drawstyle() == "steps-post"
        bands = drawn(axes, "band")
        assert len(bands) == 2
        heights = bands[0].get_paths()[0].vertices[:, 1]
        assert heights.max() == want["reached_high"].sel(estimator="lr").max()
    line = named(figure.axes[1], "share", "lr")
    np.testing.assert_array_equal(line.get_xdata(), want["forwards"].sel(estimator="lr").values)
    assert "within 0.4" in figure.gradprobe_caption
    assert len(plots.reached(path, x="steps").axes) == 1


# ---- basins


def test_cells_have_the_colour_of_their_minimum(grid: xr.Dataset) -> None:
    figure = plots.basins(grid)
    x, y, index = starts_grid(grid)
    assert (list(x), list(y)) == ([-1.2, -0.4, 0.6, 1.6], [-1.5, 0.0, 1.5])
    ends = stats.basins(grid)
    for axes, label in zip(figure.axes, grid["estimator"].values, strict=True):
        assert axes.get_title(loc="left") == label
        (cells,) = drawn(axes, "cells")
        colors = np.asarray(cells.get_array()).reshape(3, 4, 4)
        for row, column in np.ndindex(3, 4):
            codes = ends.sel(estimator=label, start=index[row, column]).values
            if len(set(codes)) == 1:
                assert matplotlib.colors.to_hex(colors[row, column]) == color_of(codes[0]).lower()
            else:
                assert (label, index[row, column]) == ("alr", 0)
                assert matplotlib.colors.to_hex(colors[row, column]) != color_of(codes[-1]).lower()
        assert [t.get_text() for t in drawn(axes, "minimum")] == ["1", "2"]
    (crosses,) = drawn(figure.axes[1], "diverged")
    np.testing.assert_array_equal(crosses.get_xydata(), grid["start_position"].values[3:4])
    assert not drawn(figure.axes[0], "diverged")
    assert {"1: global (1, 0)", "2: local (-0.5, 0)", "diverged"} <= set(legend_texts(figure))
    assert "most frequent end over 5 seeds" in figure.gradprobe_caption
    assert "5 of 60 walkers of lr diverged" in figure.gradprobe_caption
    assert "frame" not in figure.gradprobe_caption
    found = stats.agreement(grid)
    for row, drawn_row in zip(found["end"].values, figure.gradprobe_record["methods"], strict=True):
        np.testing.assert_array_equal(row[index], drawn_row["minimum"])


def test_one_seed_of_basins(grid: xr.Dataset) -> None:
    figure = plots.basins(grid, seed=0)
    assert "elsewhere" in legend_texts(figure)
    assert not any("% of seeds" in t for t in legend_texts(figure))
    assert {tuple(r) for m in figure.gradprobe_record["methods"] for r in m["share"]} == {(1.0,) * 4}


def test_agreement(grid: xr.Dataset) -> None:
    found = stats.agreement(grid, radius=0.3)
    assert found["end"].dims == found["share"].dims == ("estimator", "start")
    assert found.attrs == stats.basins(grid, radius=0.3).attrs
    assert float(found["share"].sel(estimator="alr", start=0)) == 0.6
    most, share = most_frequent(np.array([[0, 0, 1, -1], [-1, 2, 2, -2], [1, 0, -1, -1], [0, 1, 1, 0]]))
    assert list(most) == [0, 2, -1, 0]
    np.testing.assert_array_equal(share, [0.5, 0.5, 0.5, 0.5])


def test_starts_that_are_no_grid_are_refused(grid: xr.Dataset) -> None:
    for ds in (make_path(starts=4), make_path(), grid.isel(start=slice(1, None))):
        with pytest.raises(UsageError, match="needs starts on a grid"):
            plots.basins(ds)


# ---- fields


def test_fields_show_minus_the_vector_and_the_zeros(path: xr.Dataset) -> None:
    field = make_field(path)
    figure = plots.fields(field, path)
    assert [a.get_title(loc="left") for a in figure.axes] == ["gradient", "lr", "alr"]
    gradient, lr, alr = figure.axes
    (arrows,) = drawn(gradient, "arrows")
    towards = -np.stack([arrows.X, arrows.Y], -1)
    made = np.stack([arrows.U, arrows.V], -1)
    cosine = (made * towards).sum(-1) / np.linalg.norm(made, axis=-1) / np.linalg.norm(towards, axis=-1)
    np.testing.assert_allclose(cosine, 1)
    assert np.linalg.norm(made, axis=-1).max() <= 1 + 1e-12
    assert matplotlib.colors.to_hex(arrows.get_facecolor()[0]) == "#0072b2"
    np.testing.assert_array_equal(drawn(gradient, "stable")[0].get_xydata(), [[0, 0]])
    np.testing.assert_array_equal(drawn(lr, "stable")[0].get_xydata(), [[0.5, 0.25]])
    np.testing.assert_array_equal(drawn(lr, "unstable")[0].get_xydata(), [[-1, 1]])
    np.testing.assert_array_equal(drawn(lr, "edge")[0].get_xydata(), [[2, 0.5]])
    assert "projected" in figure.gradprobe_caption
    np.testing.assert_array_equal(drawn(lr, "gradient zeros")[0].get_xydata(), [[0, 0]])
    assert not drawn(gradient, "gradient zeros")
    assert not drawn(alr, "arrows")
    assert drawn(alr, "noise")
    assert "Pale arrows of alr: shorter than two standard errors" in figure.gradprobe_caption
    assert "Zeros of alr were not looked for: its field was sampled." in figure.gradprobe_caption
    assert "stable zero (where looked for)" in legend_texts(figure)


def test_an_integral_that_has_not_converged_is_not_trusted(path: xr.Dataset) -> None:
    field = make_field(path).isel(field=[0, 1])
    assert "stable zero" in legend_texts(plots.fields(field))
    field = field.assign_coords(how=("field", ["exact", "integrated, not converged"]))
    field["error"][1] = 0.5
    field["error"][1, 0, 0] = 1.0
    longest = np.linalg.norm(field["vector"].values[1], axis=-1).max()
    figure = plots.fields(field)
    for part in (
        "Pale arrows of lr: shorter than twice the difference from a coarser integration",
        f"The integral of lr has not converged: it differs from a coarser one by up to {141.42 / longest:.2g} %",
        "its zeros were not looked for",
    ):
        assert part in figure.gradprobe_caption
    assert "standard errors" not in figure.gradprobe_caption
    assert "stable zero (where looked for)" in legend_texts(figure)


def test_ends_of_walkers_are_in_their_panels(path: xr.Dataset) -> None:
    figure = plots.fields(make_field(path), path)
    for axes, label in zip(figure.axes, ("bp", "lr", "alr"), strict=True):
        (dots,) = drawn(axes, "ends")
        want = path["position"].sel(estimator=label).isel(step=-1).values
        np.testing.assert_array_equal(dots.get_xydata(), want[np.isfinite(want).all(-1)])
    assert "7 (gradient), 6 (lr), 5 (alr)" in figure.gradprobe_caption
    assert "Diverged: 1 of lr, 2 of alr." in figure.gradprobe_caption
    assert not drawn(plots.fields(make_field(path)).axes[0], "ends")


def test_a_field_without_zeros(path: xr.Dataset) -> None:
    figure = plots.fields(make_field(path).isel(zero=slice(0, 0), field=[0]))
    figure.draw_without_rendering()
    assert len(figure.axes) == 1


# ---- animation


def test_animation(path: xr.Dataset, tmp_path: Path) -> None:
    file = plots.animate(path, save=tmp_path / "new" / "film.gif", frames=12, seconds=2)
    assert file == tmp_path / "new" / "film.gif"
    assert [p.name for p in file.parent.iterdir()] == ["film.gif"]
    with Image.open(file) as film:
        assert film.n_frames == 12
        assert film.info["duration"] == 170
        first = np.asarray(film.convert("RGB"))
        film.seek(11)
        assert (first != np.asarray(film.convert("RGB"))).any()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("fails", [False, True])
def test_film_through_ffmpeg(path: xr.Dataset, tmp_path: Path, monkeypatch, fails: bool) -> None:
    """A stand-in for ffmpeg writes how many bytes it read, or fails."""
    said = "echo no codec >&2; exit 1" if fails else 'for last; do :; done; wc -c > "$last"'
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    if fails:
        with pytest.raises(UsageError, match="no codec; give save= the ending .gif"):
            plots.animate(path, save=tmp_path / "a.mp4", frames=3)
        assert not (tmp_path / "a.mp4").exists()
        return
    file = plots.animate(path, save=tmp_path / "a.mp4", frames=3)
    count = int(file.read_text())
    assert count % (3 * 3 * 4) == 0  # three frames of three bytes, even numbers of pixels
    assert count > 0


def test_without_ffmpeg(path: xr.Dataset, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ffmpeg, which is not installed"):
        plots.animate(path, save=tmp_path / "a.mp4")


# ---- all of them


@pytest.mark.parametrize("name", ["trajectory", "basins", "reached", "animate"])
@pytest.mark.parametrize("wrong", [None, "runs/demo", xr.Dataset()])
def test_only_paths(name: str, wrong: object) -> None:
    with pytest.raises(UsageError, match=r"this needs the path that gp\.descend"):
        getattr(plots, name)(wrong, save="film.gif")


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("trajectory", {"seed": 70}, "unknown seed '70'"),
        ("trajectory", {"start": 1}, "unknown start '1'"),
        ("trajectory", {"x": "step"}, "unknown x 'step'. Did you mean 'steps'?"),
        ("trajectory", {"width": "tripel"}, "unknown width"),
        ("reached", {"x": ["steps", "time"]}, "unknown x 'time'"),
        ("reached", {"x": []}, "unknown x"),
        ("animate", {"save": "film.avi"}, "written as .gif or .mp4"),
        ("animate", {"save": "film.gif", "seed": 70}, "unknown seed '70'"),
        ("animate", {"save": "film.gif", "start": 3}, "unknown start '3'"),
        ("animate", {"save": "film.gif", "frames": 1}, "frames must be a whole number from 2 on"),
        ("animate", {"save": "film.gif", "seconds": 0}, "seconds must be a positive number"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(
    path: xr.Dataset, name: str, wrong: dict, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        getattr(plots, name)(path, **wrong)


def test_what_needs_more(path: xr.Dataset, grid: xr.Dataset, tmp_path: Path) -> None:
    field = make_field(path)
    with pytest.raises(UsageError, match=r"this needs the field that gp\.field"):
        plots.fields(path)
    with pytest.raises(UsageError, match="one on beale and the field one of two wells"):
        plots.fields(field, path.assign_attrs(function="beale"))
    with pytest.raises(UsageError, match="has a field among"):
        plots.fields(field, make_path(estimators=("es",)))
    with pytest.raises(UsageError, match="is not known; give minima="):
        plots.reached(make_path(minima=False))
    for draw in (plots.basins, plots.animate):
        with pytest.raises(UsageError, match="two variables, and two wells has 3"):
            draw(make_path(dims=3), save=tmp_path / "film.gif")
    with pytest.raises(UsageError, match="unknown seed"):
        plots.basins(grid, seed=70)


def test_files_are_the_same_again_whatever_the_user_s_settings(
    path: xr.Dataset, grid: xr.Dataset, tmp_path: Path
) -> None:
    makers = {
        "trajectory": lambda stem: plots.trajectory(path, save=stem),
        "reached": lambda stem: plots.reached(path, save=stem),
        "basins": lambda stem: plots.basins(grid, save=stem),
        "fields": lambda stem: plots.fields(make_field(path), path, save=stem),
    }

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    for name, make in makers.items():
        figure = make(tmp_path / "a")
        with mpl.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9}):
            make(tmp_path / "b")
        for ending in ("png", "pdf", "json"):
            one, other = ((tmp_path / f"{n}.{ending}").read_bytes() for n in "ab")
            assert one == other, (name, ending)
        data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert data == figure.gradprobe_record
        assert data["figure"] == name
        assert data["caption"] == figure.gradprobe_caption
        assert "gradprobe" in data["versions"]


def test_leaves_no_trace(path: xr.Dataset, grid: xr.Dataset, tmp_path: Path) -> None:
    before = {k: v for k, v in mpl.rcParams.items() if k != "backend"}  # reading that one chooses it
    copies = path.copy(deep=True), grid.copy(deep=True)
    for figure in draw_each(path, grid, "double"):
        assert figure._repr_png_().startswith(b"\x89PNG")
    plots.animate(path, save=tmp_path / "a.gif", frames=2)
    assert plt.get_fignums() == []
    assert {k: v for k, v in mpl.rcParams.items() if k != "backend"} == before
    xr.testing.assert_identical(copies[0], path)
    xr.testing.assert_identical(copies[1], grid)
