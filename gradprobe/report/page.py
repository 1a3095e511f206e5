"""A run as one HTML file that needs nothing else: no network, no server; complete without JavaScript."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from markupsafe import Markup

from gradprobe.core.errors import UsageError, described, one_of
from gradprobe.report.context import Context, one_run
from gradprobe.report.elements import tag
from gradprobe.report.kinds import TARGET
from gradprobe.report.palette import palette
from gradprobe.report.sections import SECTIONS
from gradprobe.report.tables import FEWEST, Range
from gradprobe.stats._grid import within
from gradprobe.stats._numbers import check_cosine
from gradprobe.store.files import check_writable, write_atomically
from gradprobe.store.levels import main_part
from gradprobe.store.paths import check_probed
from gradprobe.store.run import open_run


def write_html(
    ds: xr.Dataset | str | Path,
    file: str | Path,
    *,
    reference: str = "bp",
    copies: Range = None,
    cosine: float = TARGET,
) -> Path:
    """Write the report of a run as one HTML file.

    Args:
        ds: Results, or the path of a run.
        file: Where to, .html; missing folders are made. It is written whole or not at all.
        reference: What estimates are held against.
        copies: Range (n1, n2) of copies for Acc. and Sta.; all by default.
        cosine: Target of the plan, between 0 and 1.

    Returns:
        The file.

    Raises:
        UsageError: It is no result of a probe, a name is unknown, or the file cannot be written.
    """
    path = Path(file)
    if path.suffix != ".html":
        raise UsageError(f"a page is saved as a .html file, not as {str(file)!r}; add .html to the name.")
    check_writable(path.parent)
    given = open_run(ds) if isinstance(ds, (str, Path)) else ds
    content = html(given, reference=reference, copies=copies, cosine=cosine).encode(errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def html(ds: xr.Dataset, *, reference: str = "bp", copies: Range = None, cosine: float = TARGET) -> str:
    """The text of the page; arguments as for :func:`write_html`.

    Raises:
        UsageError: It is no result of a probe, or a name is unknown.
    """
    context = make_context(ds, reference=reference, copies=copies, cosine=cosine)
    style, script = asset("page.css") + palette(context.ds), asset("page.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    layers = [{"name": n, "kind": k} for n, k in zip(context.layers, context.kinds, strict=True)]
    page: str = environment.from_string(asset("page.html")).render(
        title=context.title,
        style=Markup(style),
        script=Markup(script),
        mark=_mark(script),
        sections=[s for s in map(_section(context), in_order()) if s],
        methods=[(context.place(m), m, context.method(m)) for m in context.methods],
        layers=layers,
    )
    return page


def make_context(ds: Any, *, reference: str = "bp", copies: Range = None, cosine: float = TARGET) -> Context:
    """What sections are made of, checked; arguments as for :func:`write_html`.

    Raises:
        UsageError: It is no result of a probe, or a name is unknown.
    """
    if not isinstance(ds, xr.Dataset):
        raise UsageError(f"a page needs results of gp.probe(...) or gp.open_run(...), not {described(ds)}.")
    one = one_run(ds)
    check_probed(one)
    one_of("reference", reference, [str(r) for r in one["reference"].values])
    one, reference = main_part(one, reference)
    if copies is not None:
        within(one["copies"].values, copies, FEWEST)
    return Context(ds, one, reference, copies, check_cosine(cosine))


def in_order() -> list[Any]:
    """Entries of the registry of sections in the order of the page."""
    return sorted(SECTIONS, key=lambda entry: (entry.meta["order"], entry.name))


def _section(context: Context) -> Any:
    def made(entry: Any) -> dict[str, Any] | None:
        try:
            body = SECTIONS.get(entry.name)(context)
        except UsageError as error:
            said = str(error)
            body = tag("p", said[:1].upper() + said[1:], class_="lacks")
        if body is None:
            return None
        one = context.which and not entry.meta.get("runs")  # several runs: each heading says whose it is
        whose = f": {context.which}" if one else ""
        return {"name": entry.name, "title": entry.meta["title"], "whose": whose, "body": body}

    return made


def asset(name: str) -> str:
    """A file of the page that is part of the package."""
    return (files("gradprobe.report") / "assets" / name).read_text(encoding="utf-8")


def _mark(script: str) -> str:
    """By this the page's policy knows its own script; no other runs, whatever a name may hold."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
