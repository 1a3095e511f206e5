"""Is the noise, and what it does to the loss, large against rounding?"""

from __future__ import annotations

import torch

from gradprobe.checkup import register
from gradprobe.checkup.case import Case, Unit
from gradprobe.checkup.finding import Verdict, ok, refused, warning, worst
from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer

RESOLVED = 100.0
"""Ulp of the loss that noise must move it by: rounding errors of some ulp add a thousandth of the variance then."""

ROUNDING = 0.1
"""Rounding error over centred loss from which on rounding adds more than 1 % to the variance."""

LOST = (0.01, 0.5)
"""Shares of the noise that rounding may take: from the first on a warning, from the second on refused."""

NUMBERS = 8
"""Losses behind a ratio: with fewer, a ratio that is five times too large would be no rarity."""


@register("precision", summary="noise is large against rounding", per="layer", order=50, quick=True)
def check(case: Case, layer: Layer) -> Verdict | None:
    """Compare noise with the spacing of the numbers that it is added to, and centred losses with their rounding.

    A quick look takes one copy and looks closer only at layers whose centred loss is below :data:`RESOLVED` ulp. The
    closer look repeats the same noise in float64; where that cannot be done, the ulp decide.
    """
    units = case.units_of(layer, "weights")
    units += case.units_of(layer, "activations") if layer.activations else []
    found = []
    for unit in units:
        try:
            found += [_lost(case, layer, unit), _resolved(case, layer, unit)]
        except UsageError as error:
            found.append(warning(f"a copy of layer {layer.name!r} cannot be run: {error}"))
    verdict = worst(found)
    if verdict is None or verdict.status != "ok":
        return verdict
    return max((v for v in found if v.value), key=lambda v: v.value.get("rounding", 0.0))


def _lost(case: Case, layer: Layer, unit: Unit) -> Verdict:
    """The share of the noise that is gone once it was added."""
    draw, shaken = unit[0], case.shaken(unit)
    share, kind = shaken.lost(layer.name), shaken.types.get(layer.name, "")
    value = {"lost": share, "type": kind, "where": draw.where}
    if share < LOST[0]:
        return ok(f"noise on the {draw.where} of {layer.name!r} is kept in {kind}.", value)
    text = (
        f"{share:.0%} of the noise on the {draw.where} of layer {layer.name!r} (sigma {draw.sigma_of(layer.name):g}) "
        f"is rounded away in {kind}, while its score is counted"
    )
    wide = "float32" if kind in ("bfloat16", "float16") else "float64"
    way = f"use a larger sigma, or precision='{wide}'."
    if share < LOST[1]:
        return warning(f"{text}: estimates are shorter and noisier; {way}", value)
    return refused(f"{text}: estimates would be of little but rounding; {way}", value)


def _resolved(case: Case, layer: Layer, unit: Unit) -> Verdict:
    """What noise does to the loss, against what rounding does."""
    draw, shaken = unit[0], case.shaken(unit)
    centred = _centred(case, layer, shaken.losses)
    if not bool(centred.isfinite().all()):
        return warning(
            f"with noise of sigma {draw.sigma_of(layer.name):g} on the {draw.where} of layer {layer.name!r} the loss "
            "is not finite: such copies count as 0; use a smaller sigma.",
            {"where": draw.where},
        )
    eps = torch.finfo(shaken.losses.dtype).eps
    ulp = eps * max(_rms(_credited(case, layer, case.clean)), torch.finfo(shaken.losses.dtype).tiny)
    size = _rms(centred) / ulp
    value = {"where": draw.where, "ulp": size}
    kind = str(shaken.losses.dtype).removeprefix("torch.")
    text = f"sigma {draw.sigma_of(layer.name):g} on the {draw.where} of layer {layer.name!r} moves the loss"
    if size >= RESOLVED and (case.quick or case.precise is None):
        return ok(
            f"{text} by {size:.0f} ulp of {kind}.", value | {"rounding": 1 / size, "cell": f"{size:.0e} ulp"}
        )
    if size == 0 and not case.steepness(layer):
        return ok(f"{text} nowhere; see the check of noise.", value)
    if size == 0:
        return warning(f"{text} nowhere in a copy: most estimates are 0; use a larger sigma.", value)
    if case.precise is None:
        return warning(f"{text} by {size:.0f} ulp of {kind} only: rounding decides; {_WAY}", value)
    rounding = _rounding(case, layer, unit)
    value |= {"rounding": rounding, "cell": f"{rounding:.0e}"}
    if rounding < ROUNDING:
        return ok(f"{text} by {size:.0f} ulp of {kind}, of which rounding is {rounding:.1g}.", value)
    return warning(
        f"{text} by {size:.0f} ulp of {kind}, and rounding (against the same noise in float64) is {rounding:.2g} of "
        f"that: it adds {rounding**2:.0%} to the variance; {_WAY}",
        value,
    )


_WAY = "use a larger sigma, or precision='float64'."


def _rounding(case: Case, layer: Layer, unit: Unit) -> float:
    """Root mean square of what centred losses differ by from those in float64, over that of the latter."""
    if case.precise is case.problem:
        return torch.finfo(torch.float64).eps
    off, true = [], []
    copies = -(-NUMBERS // max(_centred(case, layer, case.clean).numel(), 1))
    for copy in range(copies):
        rough = _centred(case, layer, case.shaken(unit, copy).losses)
        exact = case.shaken(unit, copy, precise=True).losses.double() - case.precise_clean
        exact = _credited(case, layer, exact)
        off.append((rough - exact).flatten())
        true.append(exact.flatten())
    scale = _rms(torch.cat(true))
    return _rms(torch.cat(off)) / scale if scale else 0.0


def _centred(case: Case, layer: Layer, losses: torch.Tensor) -> torch.Tensor:
    return _credited(case, layer, losses.double() - case.clean)


def _credited(case: Case, layer: Layer, losses: torch.Tensor) -> torch.Tensor:
    """The losses that the layer's noise is credited with: each sample's, or the copy's."""
    return losses if layer.credit == "sample" else case.problem.total(losses)


def _rms(losses: torch.Tensor) -> float:
    return float((losses.double() ** 2).mean() ** 0.5)
