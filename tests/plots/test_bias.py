"""The figure of surrogates' bias shows the table that it is given."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from gradprobe import plots
from gradprobe.core.errors import UsageError

METHODS = ["steep", "flat", "through"]


def make_table() -> pd.DataFrame:
    """Ceilings all different; steep is undefined and flat unresolved at the smallest sigma."""
    rows = []
    places = itertools.product(["a", "b"], ["before", "after"], METHODS, [0.5, 0.1], ["bp", "smoothed"])
    for number, (layer, stage, method, sigma, reference) in enumerate(places):
        state = {("steep", 0.1): "undefined", ("flat", 0.1): "unresolved"}.get((method, sigma), "resolved")
        ceiling, low = 0.2 + 0.01 * number, 0.1 + 0.01 * number
        row = {"layer": layer, "stage": stage, "method": method, "sigma": sigma, "reference": reference}
        value = ceiling if state == "resolved" else np.nan
        ends = [np.nan] * 2 if state == "undefined" else [low, ceiling + 0.2]
        rows.append(row | {"state": state, "ceiling": value, "ceiling_low": ends[0], "ceiling_high": ends[1]})
    return pd.DataFrame(rows)


def of_kind(axes: mpl.axes.Axes, kind: str) -> list[mpl.lines.Line2D]:
    return [a for a in axes.get_lines() if a.get_gid() == kind]


def test_marks_are_the_rows_of_the_table() -> None:
    table = make_table()
    figure = plots.bias(table)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["a, before", "a, after", "b, before", "b, after"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == METHODS
    for (layer, stage), mine in table.groupby(["layer", "stage"]):
        axes = panels[f"{layer}, {stage}"]
        known = mine[mine["state"] == "resolved"]
        values = {round(float(a.get_xdata()[0]), 9): a for a in of_kind(axes, "value")}
        assert {round(v, 9) for v in known["ceiling"]} == set(values)
        for _, row in known.iterrows():
            mark = values[round(row["ceiling"], 9)]
            assert METHODS[round(mark.get_ydata()[0])] == row["method"]
            assert (mark.get_markerfacecolor() == "white") == (row["reference"] == "smoothed")
        bars = sorted(tuple(a.get_xdata()) for a in of_kind(axes, "interval"))
        there = mine[mine["state"] != "undefined"]
        want = np.clip(there[["ceiling_low", "ceiling_high"]].to_numpy(), 0, 1)
        np.testing.assert_allclose(bars, sorted(map(tuple, want)))
        crosses = of_kind(axes, "none")
        assert [METHODS[round(a.get_ydata()[0])] for a in crosses] == ["steep", "steep"]


def test_rows_of_a_method_do_not_overlap_others() -> None:
    axes = plots.bias(make_table()).axes[0]
    heights = [a.get_ydata()[0] for kind in ("value", "none") for a in of_kind(axes, kind)]
    assert len(set(heights)) == 10  # 12 less the two of which only bounds are known
    assert max(abs(y - round(y)) for y in heights) < 0.5


def test_legend_tells_what_is_shown_and_only_that() -> None:
    table = make_table()
    texts = {t.get_text() for t in plots.bias(table).legends[0].get_texts()} - {""}
    words = {"σ = 0.1", "σ = 0.5", "surrogate gradient", "its mean over the noise"}
    assert texts == words | {"no gradient", "bounds only"}
    plain = table[table["sigma"] == 0.5]
    assert {t.get_text() for t in plots.bias(plain).legends[0].get_texts()} - {""} == words - {"σ = 0.1"}


def test_files_hold_the_table_and_caption(tmp_path: Path) -> None:
    table = make_table()
    figure = plots.bias(table, save=tmp_path / "bias")
    record = json.loads((tmp_path / "bias.json").read_text())
    assert record["caption"] == figure.gradprobe_caption
    assert "Of 48 ceilings: 32 resolved, 8 undefined, 8 unresolved." in figure.gradprobe_caption
    assert record["table"]["sigma"] == table["sigma"].tolist()
    assert record["table"]["ceiling"][2] is None
    assert {p.suffix for p in tmp_path.iterdir()} == {".png", ".pdf", ".json"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="state"), "no column 'state'"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: t.assign(sigma=range(len(t))), "48 values of sigma; the figure tells 3 apart"),
        (lambda t: t.assign(reference=[str(i) for i in t.index]), "48 values of reference"),
    ],
)
def test_bad_tables_get_one_sentence(change, words) -> None:
    with pytest.raises(UsageError) as caught:
        plots.bias(change(make_table()))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
