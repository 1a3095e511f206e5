"""Level 2: looks at a problem before it is probed, and says what can be trusted.

A check is one file with a function that is registered here. One that is registered ``per="problem"`` is called with
a :class:`~gradprobe.checkup.case.Case`, one ``per="layer"`` also with each layer; it returns a
:class:`~gradprobe.checkup.finding.Verdict`, or None where it does not apply. ``order`` is its place in tables;
``quick=True`` runs it before every probe too, ``last=True`` after all others; ``noted=True`` says that a report has
what it warns of among its other notes.
"""

from gradprobe.core.registry import Registry

CHECKS = Registry("check", __name__)
register = CHECKS.register
