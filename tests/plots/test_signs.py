"""The figure of what signs cost shows the statistics of its runs."""

from __future__ import annotations

import numpy as np
import pytest

from gradprobe import plots, stats
from gradprobe.core.errors import UsageError
from gradprobe.plots.signs_figure import ENCODINGS, PAIR
from tests.synthetic import Truth, make_run


@pytest.fixture(scope="module")
def run():
    truths = {label: Truth(rho, 40.0) for label, rho in zip(ENCODINGS, (1.0, 1.0, 0.8, 0.7), strict=True)}
    truths |= {"hybrid": Truth(1.0, 60.0), "a-hybrid": Truth(0.8, 5000.0)}
    return make_run(np.random.default_rng(0), estimators=truths, blocks=8)


def test_marks_and_bars_are_the_statistics(run):
    figure = plots.signs({"early": run, "trained": run})
    law = stats.alignment(run)
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["early", "trained"]
    for row, name in ((0, "ceiling"), (1, "price")):
        for label in ENCODINGS:
            (line,) = (a for a in figure.axes[2 * row].get_lines() if a.get_gid() == label)
            want = law[name].sel(estimator=label).values
            if name == "price":
                want = want / law[name].sel(estimator="lr").values
            else:
                want = np.where(law["state"].sel(estimator=label) == "resolved", want, np.nan)
            np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), want)
    sta, floor = stats.stability(run).mean("seed"), stats.stability_floor(run)
    ceiling = law["ceiling"].where(law["state"] == "resolved")
    top = figure.axes[2].get_ylim()[1]
    assert all(max(line.get_ydata()) < top for line in figure.axes[3].get_lines())
    bars = {bar.get_gid(): bar for bar in figure.axes[4].patches}
    assert set(bars) == {f"{label} {what}" for label in PAIR for what in ("floor", "Sta.")}
    heights = [p.get_height() for p in figure.axes[4].patches if p.get_gid() == "hybrid Sta."]
    np.testing.assert_allclose(heights, (sta / ceiling).sel(estimator="hybrid"))
    heights = [p.get_height() for p in figure.axes[4].patches if p.get_gid() == "hybrid floor"]
    np.testing.assert_allclose(heights, (np.minimum(floor, sta) / ceiling).sel(estimator="hybrid"))


def test_the_caption_has_the_size_of_each_run(run):
    small = (
        run.isel(seed=[0, 1, 2], other_seed=[0, 1, 2])
        if "other_seed" in run.dims
        else run.isel(seed=[0, 1, 2])
    )
    one, two = (plots.signs(x).gradprobe_caption for x in ({"a": run, "b": run}, {"a": run, "b": small}))
    said = f"5 seeds x {int(run['copies'][-1])} copies"
    assert one.count(" seeds x ") == 1
    assert f"(a: {said}" in two
    assert "b: 3 seeds x" in two


def test_a_run_without_the_encodings_is_named(run):
    with pytest.raises(UsageError, match=r"Did you mean|Known"):
        plots.signs({"mine": run.sel(estimator=["lr", "alr"])})
    with pytest.raises(UsageError, match="runs by name"):
        plots.signs(run)
