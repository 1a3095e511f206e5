"""The page in a real browser: no complaints, no network; filter, toggle, sort, copy, phone, dark, print."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gradprobe as gp
from gradprobe.report import palette
from tests.report.browser import OWN, Browser, chromium
from tests.report.pages import HOSTILE, METHODS, large

SHOWN = """
const cards = [...document.querySelectorAll('.card')].filter(c => c.offsetParent);
return cards.map(c => c.querySelector('h3').textContent)
"""
ROWS = """
const table = document.querySelector('table[data-name=accuracy]');
return [...table.tBodies[0].rows].filter(r => r.getClientRects().length).map(r => [...r.cells].map(c => c.innerText))
"""
FILTER = """
const box = document.querySelector('#filter');
box.value = arguments[0];
box.dispatchEvent(new Event('input'));
return document.querySelector('#count').textContent
"""
CLIPBOARD = """
window.copied = [];
const writeText = async text => { if (arguments[0]) throw new Error('refused'); window.copied.push(text); };
Object.defineProperty(navigator, 'clipboard', {configurable: true, value: {writeText}})
"""
COPY = """
const done = arguments[arguments.length - 1];
document.querySelector(`.tools[data-for=accuracy] [data-do=${arguments[0]}]`).click();
setTimeout(() => done(window.copied.pop() ?? document.querySelector('textarea.copy')?.value ?? ''), 50)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, text: str, hostile_text: str) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, content in {"plain": text, "hostile": hostile_text}.items():
        (folder / f"{name}.html").write_text(content, encoding="utf-8", errors="replace")
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser, pages: dict[str, Path]) -> Iterator[Browser]:
    """The browser with the ordinary page; afterwards nothing may have been complained of or asked for."""
    shared.look()
    shared.open(pages["plain"])
    yield shared
    assert shared.complaints() == []
    assert {address.partition(":")[0] for address in shared.requests()} <= set(OWN)


def copy(browser: Browser, what: str) -> str:
    return str(browser.driver.execute_async_script(COPY, what))


def test_a_request_of_a_page_would_be_seen(shared: Browser, tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text(
        "<img src='http://127.0.0.1:9/x.png'><script>undefinedThing()</script>"
    )
    shared.open(tmp_path / "loud.html")
    assert any(address.startswith("http:") for address in shared.requests())
    assert any("undefinedThing" in said for said in shared.complaints())


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_it_loads_without_complaint_or_network(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name])
    assert browser.js("return document.readyState") == "complete"
    assert browser.js("return document.querySelectorAll('section').length") >= 9


@pytest.mark.parametrize(
    ("asked", "count", "left"),
    [
        ("", "3 layers", ["conv1", "conv2", "fc"]),
        ("conv*", "2 of 3 layers", ["conv1", "conv2"]),
        ("CONV2", "1 of 3 layers", ["conv2"]),
        ("linear", "1 of 3 layers", ["fc"]),
        ("Conv2d", "2 of 3 layers", ["conv1", "conv2"]),
        ("conv1, fc", "2 of 3 layers", ["conv1", "fc"]),
        ("conv[!1]", "1 of 3 layers", ["conv2"]),
        ("con.*", "0 of 3 layers", []),
        ("nothing", "0 of 3 layers", []),
    ],
)
def test_filter_acts_on_cards_maps_and_tables(
    browser: Browser, asked: str, count: str, left: list[str]
) -> None:
    assert browser.js(FILTER, asked) == count
    assert browser.js(SHOWN) == left
    assert {row[0] for row in browser.js(ROWS)} == {"whole model", "mean over layers", *left}
    heat = "return [...document.querySelectorAll('.heat tbody tr')].filter(r => r.offsetParent).length"
    assert browser.js(heat) == 2 * len(left)


def test_methods_are_hidden_everywhere(browser: Browser) -> None:
    seen = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    for kind in ("svg .m1", "tr.m1", ".heat .m1", "li.m1"):
        assert browser.js(seen, kind) > 0, kind
    browser.js("document.querySelector('.choice.m1 input').click()")
    assert browser.js(seen, ".m1:not(.choice):not(.choice *)") == 0
    assert browser.js(seen, ".choice.m1") == 1
    assert browser.js(seen, "svg .m0") > 0
    browser.js("document.querySelector('.choice.m1 input').click()")
    assert browser.js(seen, "svg .m1") > 0


def test_a_method_that_equals_a_hidden_one_gets_its_band(
    browser: Browser, ds: xr.Dataset, tmp_path: Path
) -> None:
    twin = ds.isel(estimator=[0, 1]).assign_coords(estimator=["lr", "twin"])
    for name, values in ds.data_vars.items():
        if "estimator" in values.dims:
            axis = values.dims.index("estimator")
            twin[name] = (values.dims, np.repeat(values.isel(estimator=[0]).values, 2, axis))
    browser.open(gp.write_html(twin, tmp_path / "twins.html"))
    seen = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    first, second = ".card .band.m0", ".card .band.m1"
    assert (browser.js(seen, first), browser.js(seen, second)) == (3, 0)
    browser.js("document.querySelector('.choice.m0 input').click()")
    assert (browser.js(seen, first), browser.js(seen, second)) == (0, 3)
    assert browser.js(seen, ".card .law.m1") == 3
    browser.js("document.querySelector('.choice.m1 input').click()")
    assert browser.js(seen, ".band") == 0


def test_the_address_keeps_what_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    browser.js(FILTER, "conv1 & fc, conv2")
    browser.js("document.querySelector('.choice.m2 input').click()")
    browser.js("document.querySelector('table[data-name=accuracy] th[data-name=ceiling] button').click()")
    state = browser.js("return location.hash")
    rows = browser.js(ROWS)
    browser.open(pages["plain"], state)
    assert browser.js("return document.querySelector('#filter').value") == "conv1 & fc, conv2"
    assert browser.js(SHOWN) == ["conv2"]
    assert browser.js(ROWS) == rows
    browser.js("document.querySelector('nav a').click()")
    assert browser.js("return location.hash") == state


def test_sorting_by_click_and_keyboard(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    head = "document.querySelector('table[data-name=accuracy] th[data-name=\"Acc.\"]')"
    browser.js(f"{head}.querySelector('button').click()")
    values = [float(row[2]) for row in browser.js(ROWS) if row[2]]
    assert values == sorted(values)
    assert len(values) > 8
    assert browser.js(f"return {head}.getAttribute('aria-sort')") == "ascending"
    assert browser.js(ROWS)[-1][2] == ""  # refused: what is not known comes last
    browser.js(f"{head}.querySelector('button').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    values = [float(row[2]) for row in browser.js(ROWS) if row[2]]
    assert values == sorted(values, reverse=True)
    assert browser.js(f"return {head}.getAttribute('aria-sort')") == "descending"
    assert browser.js(ROWS)[-1][2] == ""
    others = "return [...document.querySelectorAll('table[data-name=accuracy] th[aria-sort=none]')].length"
    assert (
        browser.js(others)
        == browser.js("return document.querySelectorAll('table[data-name=accuracy] thead th').length") - 1
    )


def test_copies_hold_what_is_shown_in_full(browser: Browser, ds: xr.Dataset) -> None:
    browser.js(CLIPBOARD, False)
    browser.js(FILTER, "fc")
    browser.js("document.querySelector('.choice.m2 input').click()")
    browser.js("document.querySelector('table[data-name=accuracy] th[data-name=\"Acc.\"] button').click()")
    rows = list(csv.DictReader(io.StringIO(copy(browser, "csv"))))
    assert {r["method"] for r in rows} == {"lr", "alr", "bp"}
    assert {r["layer"] for r in rows} == {"whole model", "mean over layers", "fc"}
    values = [float(r["Acc."]) for r in rows]
    assert values == sorted(values)
    want = float(gp.stats.accuracy(ds).mean("seed").sel(estimator="alr", layer="fc"))
    assert want in values
    table = copy(browser, "latex")
    assert table.startswith("\\begin{tabular}{llrrrr")
    assert table.count("\\\\") == 1 + len(rows)


def test_hostile_names_in_copies(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    browser.js(CLIPBOARD, False)
    text = copy(browser, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    one_line = {" ".join(name.split()) for name in HOSTILE}
    assert {r["layer"].removeprefix("'") for r in rows} == one_line | {"whole model", "mean over layers"}
    assert {r["method"].removeprefix("'") for r in rows} == set(METHODS)
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not re.match(r"[=@\t\r]|[+-](?![\d.i])", cell), cell
    table = copy(browser, "latex")
    assert (
        "\\textbackslash{}textbf\\{a\\}\\_b\\textasciicircum{}c\\%\\$\\#\\&\\textasciitilde{}\\{\\}" in table
    )
    assert "\\$\\textbackslash{}frac\\{\\$" in table
    assert not set("<>|") & set(table)  # other signs in the fonts that LaTeX has by default
    assert browser.js(FILTER, HOSTILE[0]) == f"1 of {len(HOSTILE)} layers"
    assert browser.js(SHOWN) == [HOSTILE[0]]
    assert browser.js("return document.querySelectorAll('img, section b, [onclick], [onload]').length") == 0


def test_a_refused_clipboard_gives_selected_text(browser: Browser) -> None:
    browser.js(CLIPBOARD, True)
    text = copy(browser, "csv")
    assert text.startswith("layer,method,Acc.")
    assert browser.js("const a = document.activeElement; return a.value.slice(a.selectionStart)") == text
    assert "refused" in browser.js("return document.querySelector('.told').textContent")


def test_saving_gives_a_file(browser: Browser) -> None:
    browser.js("document.querySelector('.tools[data-for=accuracy] [data-do=save]').click()")
    file = browser.folder / "saved" / "accuracy.csv"
    for _ in range(600):
        if file.exists():
            break
        time.sleep(0.1)
    assert file.read_text(encoding="utf-8").startswith("layer,method,Acc.")


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_a_phone_has_no_horizontal_scroll_and_one_column(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.look(width=360, height=740)
    browser.open(pages[name])
    assert browser.js("return document.documentElement.scrollWidth") <= 360
    left = """
    const edges = [...document.querySelectorAll('.card')].map(c => Math.round(c.getBoundingClientRect().left));
    return new Set(edges).size
    """
    assert browser.js(left) == 1
    browser.look(width=1280)
    assert browser.js(left) == 3


def test_everything_that_is_used_or_looked_at_has_a_name(browser: Browser) -> None:
    unnamed = """
    const named = e => e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length;
    const all = document.querySelectorAll('a, button, input, summary, svg.figure, [tabindex], thead th');
    return [all.length, ...[...all].filter(e => !named(e)).map(e => e.outerHTML)]
    """
    count, *without = browser.js(unnamed)
    assert count > 50
    assert without == []


def test_a_dark_page_is_legible(browser: Browser) -> None:
    browser.look(dark=True)
    color = """
    const [selector, name, part] = arguments;
    const text = getComputedStyle(document.querySelector(selector), part)[name];
    const found = text.match(/[\\d.]+/g).slice(0, 3).map(x => text.startsWith('color(') ? 255 * x : Number(x));
    return '#' + found.map(x => Math.round(x).toString(16).padStart(2, '0')).join('')
    """
    ground = browser.js(color, "section", "backgroundColor")
    assert ground == palette.DARK_GROUND
    for selector, name in (
        ("section p", "color"),
        (".quiet", "color"),
        ("a", "color"),
        ("h2", "color"),
        ("svg.figure text", "fill"),
        ("svg .law path", "stroke"),
    ):
        assert palette.contrast(browser.js(color, selector, name), ground) >= 4.5, selector
    assert palette.contrast(browser.js(color, "#filter", "color", "::placeholder"), ground) >= 4.5
    for place in range(4):
        assert palette.contrast(browser.js(color, f".mark.m{place}", "color"), ground) >= palette.LEAST
        line = browser.js(color, f"svg .mean.m{place} path", "stroke")
        assert palette.contrast(line, ground) >= palette.LEAST
    browser.look(dark=False)
    assert browser.js(color, "section", "backgroundColor") == "#ffffff"


def test_print_has_pages_of_a4_without_controls_and_without_hidden_layers(browser: Browser) -> None:
    browser.look(media="print")
    for selector in (".tools", ".find", "nav", ".choice input"):
        assert browser.js(f"return getComputedStyle(document.querySelector('{selector}')).display") == "none"
    browser.look()
    whole = browser.pdf()
    assert whole.startswith(b"%PDF")
    assert len(whole) > 20_000
    pages = len(re.findall(rb"/Type\s*/Page\b", whole))
    assert 2 <= pages <= 12
    sizes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", whole)
    assert {(round(float(w) / 72 * 25.4), round(float(h) / 72 * 25.4)) for w, h in sizes} == {(210, 297)}
    browser.js(FILTER, "fc")
    fewer = browser.pdf()
    assert len(re.findall(rb"/Type\s*/Page\b", fewer)) < pages


def test_it_reads_without_javascript(browser: Browser, pages: dict[str, Path]) -> None:
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["plain"])
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    assert not browser.js("return document.documentElement.classList.contains('js')")
    assert len(browser.js(SHOWN)) == 3
    assert browser.js("return getComputedStyle(document.querySelector('.find')).display") == "none"
    assert browser.js("return document.querySelector('.choice').getClientRects().length") == 1


def test_a_hundred_layers_and_eight_methods_stay_quick(browser: Browser, tmp_path: Path) -> None:
    """In seconds of the page's own processor time: what else the machine does is not in it."""
    file = gp.write_html(large(), tmp_path / "large.html")
    assert file.stat().st_size < 15e6
    with browser.busy() as loaded:
        browser.open(file)
        browser.js("document.body.offsetHeight")
    assert 0 < loaded[0] < 8  # 0.6 when this was written
    for asked, count in (("block12", "1 of 100 layers"), ("", "100 layers")):
        with browser.busy() as filtered:
            assert browser.js(FILTER, asked) == count
            browser.js("document.body.offsetHeight")
        assert 0 < filtered[0] < 4, asked  # 0.2
    with browser.busy() as hidden:
        browser.js("document.querySelector('.choice.m1 input').click(); document.body.offsetHeight")
    assert 0 < hidden[0] < 4
