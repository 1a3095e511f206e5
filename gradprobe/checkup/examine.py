"""Running all checks on a problem."""

from __future__ import annotations

from gradprobe.checkup import CHECKS
from gradprobe.checkup.case import Case
from gradprobe.checkup.diagnosis import Diagnosis, in_order
from gradprobe.checkup.finding import Finding, Verdict, warning
from gradprobe.core.layer import Layer
from gradprobe.engine.memory import free_unused, is_out_of_memory


def examine(case: Case) -> Diagnosis:
    """Run every check, or every quick one.

    Args:
        case: What to look at; its problem is frozen, and torch's global state is given back by the caller.

    Returns:
        Findings of the whole problem in the order of tables, then those of each layer.
    """
    entries = [entry for entry in in_order() if entry.meta.get("quick") or not case.quick]
    problem = [entry for entry in entries if entry.meta["per"] == "problem"]
    early = [entry for entry in problem if not entry.meta.get("last")]
    findings = [_run(case, entry.name, None) for entry in early]
    each = [entry for entry in entries if entry.meta["per"] == "layer"]
    by_layer = [_run(case, entry.name, layer) for layer in case.layers for entry in each]
    findings += [_run(case, entry.name, None) for entry in problem if entry.meta.get("last")]
    return Diagnosis(case.problem.name, tuple(f for f in [*findings, *by_layer] if f is not None))


def _run(case: Case, name: str, layer: Layer | None) -> Finding | None:
    """One check; one that itself fails is a warning, so that a look never stops what it looks at."""
    check = CHECKS.get(name)
    try:
        verdict: Verdict | None = check(case) if layer is None else check(case, layer)
    except Exception as error:
        if is_out_of_memory(error):
            free_unused()
        where = f" layer {layer.name!r}" if layer is not None else " the problem"
        verdict = warning(
            f"the check {name!r} could not look at{where} ({type(error).__name__}: {' '.join(str(error).split())}); "
            "the same may stop a probe."
        )
    if verdict is None:
        return None
    return Finding(
        name, layer.name if layer is not None else None, verdict.status, verdict.sentence, verdict.value
    )
