"""Operations in place on a layer's output."""

from __future__ import annotations

from gradprobe.checkup import register
from gradprobe.checkup.case import Case
from gradprobe.checkup.finding import Verdict, named, ok


@register("overwritten", summary="operations in place after a layer", per="problem", order=9)
def check(case: Case) -> Verdict | None:
    """Name layers whose output something later writes into, such as ``ReLU(inplace=True)``.

    Noise makes a new tensor and inputs are kept as copies, so nothing that is read later has changed; engines that
    cannot write in place are not taken (see the check of engines).
    """
    names = [x.name for x in case.layers if any(s.overwritten for s in case.walked.calls.get(x.name, ()))]
    if not names:
        return None
    return ok(
        f"the output of {named(names)} is overwritten in place; noise goes on a tensor of its own before that.",
        {"layers": names},
    )
