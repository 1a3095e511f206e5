"""The page as text: whole without a network or JavaScript, every name escaped, sections by registry."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from markupsafe import Markup

import gradprobe as gp
from gradprobe.report import page, palette
from gradprobe.report.elements import tag
from gradprobe.report.sections import SECTIONS
from gradprobe.report.text import cell
from tests.report import browser
from tests.report.pages import HOSTILE, METHODS, ordinary
from tests.stats.batched import make_batches
from tests.synthetic import Truth

ORDER = [
    "verdict",
    "probed",
    "doctor",
    "model",
    "heatmap",
    "scores",
    "cost",
    "plan",
    "layers",
    "notes",
]


class Elements(HTMLParser):
    """Elements, attributes and text of a page, read by a parser that is not ours."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.found.append((name, given))
        self.inside.append(name)
        if given.get("id"):
            self.ids.append(str(given["id"]))

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, name: str) -> None:
        while self.inside and self.inside.pop() != name:
            pass


@pytest.fixture(scope="module")
def spoiled(hostile_text: str) -> Elements:
    return Elements(hostile_text)


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    for name, attributes in Elements(text).found:
        assert name not in ("link", "iframe", "img", "object", "embed", "base", "image"), name
        assert "src" not in attributes
        for key in ("href", "xlink:href", "action", "srcset"):
            assert (attributes.get(key) or "#").startswith("#")
    assert "@import" not in text
    assert set(re.findall(r"url\(([^)]{0,3})", text)) <= {
        "#s0",
        "#b0",
        "#b1",
        "#b2",
        "#s1",
        "#s2",
        "#mo",
        "#co",
    }
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_sections_are_in_their_order_and_every_heading_is_there(text: str) -> None:
    assert re.findall(r'<section id="s-([\w-]+)"', text) == [n for n in ORDER if f'id="s-{n}"' in text]
    for name in ORDER:
        assert f'<section id="s-{name}"' in text


def test_every_file_of_sections_registers_one() -> None:
    folder = Path(page.__file__).parent / "sections"
    assert len(list(SECTIONS)) == len([f for f in folder.glob("*.py") if not f.stem.startswith("_")])
    for entry in SECTIONS:
        assert isinstance(entry.meta["order"], int)
        assert entry.meta["title"]
        assert not (folder / f"{entry.name}.py").exists()


def test_ids_are_unique_and_references_lead_somewhere(text: str) -> None:
    elements = Elements(text)
    assert len(elements.ids) == len(set(elements.ids))
    for _, attributes in elements.found:
        target = attributes.get("href")
        assert target is None or target[1:] in elements.ids
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(elements.ids)


def test_hostile_names_are_text_everywhere(spoiled: Elements) -> None:
    scripts = [a for name, a in spoiled.found if name == "script"]
    assert len(scripts) == 2
    assert scripts[0] == {"type": "application/json", "id": "layers-known"}
    for name, attributes in spoiled.found:
        assert name not in ("img", "b", "title2"), (name, attributes)
        assert not any(key.startswith("on") for key in attributes), attributes
    words = "".join(spoiled.words)
    for name in (*HOSTILE, *METHODS):
        assert " ".join(name.split()) in " ".join(words.split())
    hints = [a["title"] for name, a in spoiled.found if a.get("title") and name == "td"]
    assert any(hint.startswith(HOSTILE[0]) for hint in hints if hint)
    labels = [a["aria-label"] for name, a in spoiled.found if name == "svg"]
    assert any(HOSTILE[1] in label for label in labels if label)


def test_embedded_json_holds_the_names_and_cannot_end_its_script(hostile_text: str) -> None:
    inner = re.search(r'id="layers-known">(.*?)</script>', hostile_text, re.DOTALL)
    assert inner is not None
    assert "<" not in inner[1]
    assert [x["name"] for x in json.loads(inner[1])] == list(HOSTILE)


def test_methods_are_known_by_place_and_not_by_name(text: str, ds: xr.Dataset) -> None:
    elements = Elements(text)
    classes = {
        c for _, a in elements.found for c in (a.get("class") or "").split() if re.fullmatch(r"m\d+", c)
    }
    assert classes == {f"m{i}" for i in range(ds.sizes["estimator"])}
    groups = {a["class"] for name, a in elements.found if name == "g" and a.get("class")}
    assert {"mean m0", "law m1", "band m0", "mean m3"} <= groups


def test_the_values_behind_the_table_are_the_statistics_in_full(text: str, ds: xr.Dataset) -> None:
    want = float(gp.stats.accuracy(ds).mean("seed").sel(estimator="alr", layer="fc"))
    ceiling = float(gp.stats.alignment(ds)["ceiling"].sel(estimator="alr", layer="fc"))
    row = re.search(r'<tr data-l="2" class="m1"><th scope="row" data-v="fc">.*?</tr>', text)
    assert row is not None
    values = re.findall(r'class="number" data-v="([^"]*)"', row[0])
    assert float(values[0]) == want
    assert float(values[4]) == ceiling


def test_no_number_where_there_is_only_noise(text: str, ds: xr.Dataset) -> None:
    law = gp.stats.alignment(ds)
    states = law["state"].transpose("layer", "estimator").values
    assert "unresolved" in states
    at = np.argwhere(states == "unresolved")[0]
    hint = f"{law['layer'].values[at[0]]}, {law['estimator'].values[at[1]]}: no value"
    assert hint in text


def test_what_a_run_lacks_is_a_sentence() -> None:
    small = ordinary(seeds=2, blocks=1, smoothed=False)
    text = page.html(small)
    for name in ("heatmap", "cost", "plan"):
        part = re.search(rf'id="s-{name}".*?</section>', text, re.DOTALL)
        assert part is not None
        assert 'class="lacks"' in part[0]
    assert "no table of doctor" in text
    without = page.html(ordinary(smoothed=False))
    assert "holds no smoothed reference" in without
    assert "bias of the encoding or of smoothing" in without


def test_a_page_of_several_batches_says_which_it_shows_and_what_data_would_do() -> None:
    methods = {"lr": Truth(), "es": Truth(kappa=300.0)}
    several = make_batches(np.random.default_rng(0), methods, batches=3, noise=0.5).ds
    text = page.html(several)
    assert "the first of 3 batches" in text
    share = float(gp.stats.data_or_copies(several, "model")["data_share"])
    table = re.search(r'data-name="data-or-copies".*?</table>', text, re.DOTALL)
    assert table is not None
    assert f'data-v="{share!r}"' in table[0]


def test_rounding_is_not_shown_as_a_number(text: str, ds: xr.Dataset) -> None:
    sta = float(gp.stats.stability(ds, over="model").sel(estimator="bp").mean())
    assert 0 < sta < 1e-15  # of a curve that is 1 everywhere
    assert f'data-v="{sta!r}">0.000<' in text
    assert cell("Sta.", 1e-13) == "1.0e-13"
    assert not re.search(r">[^<]*\de-1[4-9]<", text)


def test_figures_follow_a_dark_page(text: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 2 + 2 * 3
    for figure in figures:
        assert "fill:#ffffff" not in figure
        assert "#262626" not in figure.replace("var(--ink,#262626)", "")
        assert "<text" in figure


@pytest.mark.parametrize("ground", [palette.DARK_GROUND])
def test_every_registered_colour_is_seen_on_a_dark_page(ground: str) -> None:
    from gradprobe.estimators import ESTIMATORS
    from gradprobe.estimators.base import PALETTE

    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WCAG's own example
    for color in [*(e.meta["color"] for e in ESTIMATORS if "color" in e.meta), *PALETTE]:
        assert palette.contrast(palette.seen(color), ground) >= palette.LEAST


def test_the_file_is_written_whole_or_not_at_all(ds: xr.Dataset, tmp_path: Path) -> None:
    file = gp.write_html(ds, tmp_path / "deep" / "report.html")
    assert file.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [f.name for f in file.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file": "report.txt"}, "saved as a .html file"),
        ({"reference": "smoothd"}, "Did you mean 'smoothed'?"),
        ({"ds": 3}, "not a int"),
        ({"copies": (50, 1)}, "does not lie inside what is stored"),
        ({"cosine": 1.5}, "between 0 and 1"),
    ],
)
def test_careless_calls_get_one_sentence_and_leave_nothing(
    ds: xr.Dataset, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    given: dict[str, object] = {"ds": ds, "file": "report.html"} | change
    given["file"] = tmp_path / str(given["file"])
    with pytest.raises(gp.UsageError) as error:
        gp.write_html(**given)  # type: ignore[arg-type]  # wrong on purpose
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tag_escapes_text_and_attributes_and_keeps_markup() -> None:
    made = tag("td", "<b>", Markup("<i>x</i>"), title='"&<', data_v="'", hidden=True, class_=None)
    assert made == '<td title="&#34;&amp;&lt;" data-v="&#39;" hidden>&lt;b&gt;<i>x</i></td>'


@pytest.mark.parametrize(("asked", "outcome"), [("", "skipped"), ("1", "failed")])
def test_without_a_browser_its_tests_fail_in_ci_and_are_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, outcome: str
) -> None:
    monkeypatch.setattr(browser, "CHROMIUM", tmp_path / "nowhere")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("GRADPROBE_REQUIRE_CHROMIUM", asked)
    raised = pytest.skip.Exception if outcome == "skipped" else pytest.fail.Exception
    with pytest.raises(raised, match="chromium"), browser.chromium(tmp_path):
        pass


def test_names_that_look_like_formulas_do_not_break_figures(spoiled: Elements) -> None:
    assert "$\\frac{$" in spoiled.words


def test_a_plan_says_what_it_is_held_against() -> None:
    for reference in ("bp", "smoothed"):
        section = str(SECTIONS.get("plan")(page.make_context(ordinary(), reference=reference)))
        assert f", held against {reference}.</p>" in section
