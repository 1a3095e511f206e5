from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from IPython.core.formatters import DisplayFormatter

import gradprobe as gp
from gradprobe.notebook import hook, labelled
from tests.notebook.test_runs import a_run

Html = Callable[[Any], str]


@pytest.fixture
def html(monkeypatch: pytest.MonkeyPatch) -> Html:
    """How a notebook shows a thing."""
    display = DisplayFormatter()
    monkeypatch.setattr(hook, "running_shell", lambda: SimpleNamespace(display_formatter=display))
    assert hook.register()
    return display.formatters["text/html"]


def test_runs_are_shown_our_way_and_hold_what_xarray_shows(html: Html) -> None:
    ds = a_run()
    found = html(ds)
    assert "whole model" in found
    assert "<details>" in found
    assert "xr-wrap" in found
    assert "Mean over 5 seeds." in html(gp.stats.accuracy(ds))
    assert "as xarray shows it" not in html(ds["sqnorm"])


def test_other_data_is_shown_as_before(html: Html) -> None:
    frame = pd.DataFrame({"a": [1]})
    assert html(frame) == frame._repr_html_()
    ds = xr.Dataset({"a": ("x", [1.0])})
    with xr.set_options(display_style="text"):
        assert html(ds) == ds._repr_html_()
        assert html(ds["a"]) == ds["a"]._repr_html_()


def test_a_failure_of_ours_shows_what_xarray_shows(html: Html, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ds: xr.Dataset) -> str:
        raise ZeroDivisionError

    ds = a_run()
    monkeypatch.setattr(labelled, "dataset_view", broken)
    with xr.set_options(display_style="text"):
        assert html(ds) == ds._repr_html_()


def test_a_formatter_of_the_users_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    named, typed = DisplayFormatter(), DisplayFormatter()
    named.formatters["text/html"].for_type_by_name("xarray.core.dataset", "Dataset", lambda ds: "the user's")
    typed.formatters["text/html"].for_type(xr.Dataset, lambda ds: "the user's")
    for display in (named, typed):
        monkeypatch.setattr(hook, "running_shell", lambda d=display: SimpleNamespace(display_formatter=d))
        for _ in range(2):  # twice: importlib.reload
            assert hook.register()
            assert display.formatters["text/html"](xr.Dataset()) == "the user's"
        assert ("whole model" in display.formatters["text/html"](a_run())) == (display is named)


def said_by(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_does_not_import_ipython() -> None:
    assert said_by("import gradprobe, sys; print('IPython' in sys.modules)") == "False"


def test_a_running_ipython_is_told_and_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance();"
        "before = set(sys.modules); import gradprobe;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "d = s.display_formatter.formatters['text/html'].deferred_printers;"
        "print(new & {'torch', 'xarray', 'pandas', 'matplotlib', 'numpy', 'rich'}, "
        "('xarray.core.dataset', 'Dataset') in d)"
    )
    assert said_by(code) == "set() True"
