"""Sections of the HTML report. A file of this folder that registers a function adds a section.

A section is a function of a :class:`~gradprobe.report.context.Context`::

    @register("doctor", summary="what doctor found", title="Before the numbers", order=30)
    def doctor(context: Context) -> Markup | None:
        ...

``order`` is its place on the page, ``title`` its heading. It returns Markup (made with
:mod:`gradprobe.report.elements` and :mod:`gradprobe.report.sheets`, which escape), or None where it has nothing to
say: then the page has no such section. What the run lacks is raised as ``UsageError``: the page says its sentence
in place of the section. A file must not have the name of its section.
"""

from __future__ import annotations

from gradprobe.core.registry import Registry

SECTIONS = Registry("section", __name__)
register = SECTIONS.register
