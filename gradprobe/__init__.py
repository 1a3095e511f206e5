"""How good are gradients that were estimated without backpropagation?

Public names are imported on first use, so that ``import gradprobe`` is light and what needs no torch
(``stats``, ``plots``, ``open_run``) works where torch is not installed.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Problem": "gradprobe.problems.problem",
    "load_problem": "gradprobe.problems.load",
    "load_checkpoint": "gradprobe.problems.checkpoint",
    "Estimator": "gradprobe.estimators.base",
    "register_estimator": "gradprobe.estimators",
    "Function": "gradprobe.problems.landscape",
    "find_function": "gradprobe.problems.landscape",
    "descend": "gradprobe.trajectory.descent",
    "field": "gradprobe.trajectory.mean_field",
    "audit": "gradprobe.audits.run",
    "doctor": "gradprobe.probes.consult",
    "estimate": "gradprobe.probes.estimate",
    "probe": "gradprobe.probes.run",
    "sigma_sweep": "gradprobe.probes.sweep",
    "plan": "gradprobe.stats.planning",
    "verdict": "gradprobe.report.plain_words",
    "Plan": "gradprobe.core.copyplan",
    "open_run": "gradprobe.store.run",
    "concat": "gradprobe.store.comparison",
    "export": "gradprobe.store.export",
    "write_html": "gradprobe.report.page",
    "list_estimators": "gradprobe.estimators.listing",
    "explore": "gradprobe.notebook.explore",
    "CheckpointError": "gradprobe.problems.weights.table",
    "UsageError": "gradprobe.core.errors",
}
_ALIASES = {"register_estimator": "register"}
_MODULES = ("stats", "plots")

__all__ = [*_WHERE, *_MODULES]

if TYPE_CHECKING:
    from gradprobe import plots, stats
    from gradprobe.audits.run import audit
    from gradprobe.core.copyplan import Plan
    from gradprobe.core.errors import UsageError
    from gradprobe.estimators import register as register_estimator
    from gradprobe.estimators.base import Estimator
    from gradprobe.estimators.listing import list_estimators
    from gradprobe.notebook.explore import explore
    from gradprobe.probes.consult import doctor
    from gradprobe.probes.estimate import estimate
    from gradprobe.probes.run import probe
    from gradprobe.probes.sweep import sigma_sweep
    from gradprobe.problems.checkpoint import load_checkpoint
    from gradprobe.problems.landscape import Function, find_function
    from gradprobe.problems.load import load_problem
    from gradprobe.problems.problem import Problem
    from gradprobe.problems.weights.table import CheckpointError
    from gradprobe.report.page import write_html
    from gradprobe.report.plain_words import verdict
    from gradprobe.stats.planning import plan
    from gradprobe.store.comparison import concat
    from gradprobe.store.export import export
    from gradprobe.store.run import open_run
    from gradprobe.trajectory.descent import descend
    from gradprobe.trajectory.mean_field import field


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gradprobe.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'gradprobe' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), _ALIASES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if "IPython" in sys.modules:  # how results are shown in Jupyter
    from gradprobe.notebook.hook import register

    register()
    del register
