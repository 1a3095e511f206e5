"""How Sphinx builds the documentation: ``make docs``, or ``sphinx-build -W --keep-going docs build/docs``.

Nothing is fetched while it builds. The pages of statistics, figures, methods and notebooks are written by
``pages.py`` from the registries, so a new one appears by itself.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the notebooks' models are small: more threads are slower

import pages
from sphinx.application import Sphinx

logging.getLogger("traitlets").setLevel(logging.WARNING)  # or each notebook's start is reported

project = "gradprobe"
release = version = pages.version()
language = "en"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext", ".ipynb": "myst-nb", ".py": "myst-nb"}
exclude_patterns = ["conf.py", "pages.py", "example_run.py", "**/__pycache__"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True

html_theme = "furo"
html_title = f"gradprobe {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for files, and read docstrings and links as they are meant."""
    pages.write_all(HERE / "generated")
    app.connect("autodoc-process-docstring", lambda *given: pages.with_bars(given[-1]), priority=400)
    app.connect("source-read", read_links)


def read_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Links of written pages are relative to the file."""
    folder = (HERE / page).parent
    if not page.startswith("generated/"):
        source[0] = pages.with_links(source[0], folder, folder)
