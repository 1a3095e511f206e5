"""A reader who has not read the papers finds every word of the verdict, and of the tables, on the page."""

from __future__ import annotations

import json
import re

import gradprobe as gp
from gradprobe.notebook.run import facts
from gradprobe.report import page
from gradprobe.report.sections.scores_section import ABOUT, EXPLAINED
from gradprobe.report.wording import WORDS
from gradprobe.store.along import named
from tests.report.pages import ordinary


def section(text: str, name: str) -> str:
    found = re.search(rf'<section[^>]*id="s-{name}".*?</section>', text, re.DOTALL)
    assert found is not None
    return found[0]


def test_words_of_the_verdict_and_of_the_tables_are_explained() -> None:
    ds = ordinary()
    text = page.html(ds)
    lead = section(text, "verdict")
    for word in ("copy", "cosine", "ceiling", "gain"):
        assert f"<dt>{word}</dt>" in lead
    found = set(gp.verdict(ds).table["kind"])
    for kind in ("nearly exact", "good", "bias-limited", "noise-limited", "open"):
        assert (f"<dt>{WORDS[kind]}</dt>" in lead) == (kind in found)
    for name in EXPLAINED:
        assert f"{name}: {ABOUT[name]}" in section(text, "scores")
    assert "A ceiling slightly above 1 is noise." in section(text, "heatmap")


def test_runs_side_by_side_are_named_without_the_place_of_their_files() -> None:
    runs = []
    for step in (1, 2):
        run = ordinary()
        del run.attrs["problem"]
        run.attrs["configuration"] = json.dumps({"model": "/home/me/net.py:Net", "data": "digits"})
        runs.append(run.assign_attrs(problem=f"net.py:Net, {step}.pt, digits"))
    both = gp.concat(runs, labels=[1, 2])
    assert named(both) == facts(both)[0] == "net.py:Net, digits"
    assert "<h1>net.py:Net, digits, 2 runs by checkpoint</h1>" in page.html(both)
    assert named(runs[0]) == "net.py:Net, 1.pt, digits"
