"""Does looking leave a trace on the model?"""

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok, refused
from gradprobe.checkup.marks import marks_of


@register(
    "state",
    summary="weights, buffers and flags stay as they were",
    per="problem",
    order=90,
    quick=True,
    last=True,
)
def check(case: Case) -> Verdict:
    """Compare the user's module with what it was before the first forward of this look.

    Runs last: clean forwards, noisy ones and backprop lie in between.
    """
    after = marks_of(case.problem)
    names = after.keys() | case.before.keys()
    changed = sorted(n for n in names if after.get(n) != case.before.get(n))
    if not changed:
        kept = case.problem.kept_apart
        note = f"; each forward works on copies of {named(kept)}, which it would change" if kept else ""
        return ok(f"weights, buffers, gradients and flags are what they were{note}.", {"copied": list(kept)})
    return refused(
        f"running the model changes {changed[0]}{' and others' * (len(changed) > 1)} of your own model, so copies "
        "contaminate each other and you; the forward holds on to the original (a lambda?): make that a method.",
        {"changed": changed},
    )
