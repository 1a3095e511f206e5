"""Sentences on seeds, state, side effects, names and noise of calls."""

from __future__ import annotations

from collections.abc import Sequence

from gradprobe.audits.bench import Called
from gradprobe.audits.held import is_generator
from gradprobe.audits.judge import MOST, Said
from gradprobe.audits.measured import Part
from gradprobe.audits.result import spread
from gradprobe.audits.seen import Seen
from gradprobe.checkup.finding import named

NOISY = 3.0
"""How many times the variance of plain antithetic ES is worth a warning."""

_EFFECTS = {
    "buffers": "it leaves buffers changed: {}.",
    ".grad": "it leaves something in .grad of {}.",
    "requires_grad": "it leaves requires_grad changed: {}.",
    "mode": "it leaves train() and eval() switched in {}.",
    "hooks": "it leaves hooks on {}.",
    "attributes": "it leaves attributes of the module changed: {}.",
    "structure": "it changes what the module is made of.",
    "settings": "it leaves settings of torch changed: {}.",
}


def judge_names(called: Called, wanted: Sequence[str], dead: Sequence[str], said: Said) -> None:
    """Parameters that are missing, always zero, of another shape, or unknown.

    Args:
        called: A call.
        wanted: Names of the parameters that are judged.
        dead: Those of them whose direction is always 0 although the gradient is not.
        said: Where sentences go.
    """
    odd = called.returned.misshapen
    missing = [n for n in wanted if n not in called.directions and n not in odd]
    if missing:
        gives = "returns None and leaves no .grad" if called.returned.form == ".grad" else "returns nothing"
        said.problems.append(f"it {gives} for {named(missing)}.")
    for name, shape in list(odd.items())[:MOST]:
        said.problems.append(f"it returns shape {list(shape)} for {name!r}, which is not the parameter's.")
    if others := list(odd)[MOST:]:
        said.problems.append(f"it returns another shape than the parameter's for {named(others)} too.")
    if zero := [n for n in dead if n not in missing and n not in odd]:
        said.problems.append(f"what it returns for {named(zero)} is always 0, and the gradient is not.")
    if called.returned.extra:
        said.warnings.append(f"it returns what is no parameter: {named(called.returned.extra)}.")


def judge_seeds(seen: Seen, right: bool, shown: str, surrogate: bool, said: Said) -> bool:
    """Whether the noise follows the seed.

    Args:
        seen: What was seen.
        right: Whether direction and scale are right.
        shown: What one such call is worth, in words.
        surrogate: Whether a field of its own is meant.
        said: Where sentences go.

    Returns:
        Whether its noise has a seed of its own, which explains a wrong direction.
    """
    fixed = seen.deterministic and not right and (seen.draws_anything or bool(seen.reseeds))
    if fixed:
        what = f" ({', '.join(seen.draws)})" if seen.draws else ""
        into = said.warnings if surrogate else said.problems
        into.append(
            f"it gives the same under every seed although it draws random numbers{what}: its noise has a fixed seed, "
            f"so that averaging calls takes none of it away ({shown})."
        )
    elif seen.deterministic:
        said.findings.append("seeds: it gives the same under every seed; it is deterministic.")
        if not right and seen.first.passes > 2:
            said.warnings.append(
                f"it runs {seen.first.passes:.4g} forward passes and gives the same under every seed: if it draws "
                "noise, then under a fixed seed of its own."
            )
    elif not seen.repeats:
        _unrepeated(seen, said)
    elif not seen.lasting:
        said.problems.append(
            "the order of calls matters: the same seed gave something else after other calls, so it keeps something "
            f"between calls{_kept(seen)}."
        )
    else:
        said.findings.append("seeds: the same seed gives the same, another seed something else.")
    if seen.reseeds and not fixed:
        said.warnings.append(f"it seeds the global generator of {' and '.join(seen.reseeds)} itself.")
    return fixed


def _unrepeated(seen: Seen, said: Said) -> None:
    """Why the same seed does not give the same."""
    held = seen.first.held
    own = [x.removesuffix(" (generator)") for x in held if is_generator(x)]
    if held and len(own) == len(held):
        said.warnings.append(
            f"its own generator {named(own)} goes on from call to call: seeding the global generators does not "
            "repeat a call."
        )
    elif held:
        said.problems.append(
            f"calls are not independent: the same seed gives something else in the next call, and it keeps"
            f"{_kept(seen)}."
        )
    else:
        said.problems.append(
            "the same seed gives something else: it draws from a generator that is not seeded, or keeps something "
            "between calls."
        )


def _kept(seen: Seen) -> str:
    return f" {named([x for x in seen.first.held if not is_generator(x)])}" if seen.first.held else ""


def judge_traces(seen: Seen, calls: Sequence[Called], said: Said) -> None:
    """What calls leave behind."""
    every = [seen.first, *calls]
    moved = max(c.effects.moved for c in every)
    weights = next((c.effects.said["weights"] for c in every if "weights" in c.effects.said), None)
    in_grad = seen.first.returned.form == ".grad"
    if weights is not None:
        said.warnings.append(
            f"it leaves the weights changed, by {moved:.1g} of their length in one call: {weights}."
        )
    for kind, sentence in _EFFECTS.items():
        left = next((c.effects.said[kind] for c in every if kind in c.effects.said), None)
        if left is None or (kind == ".grad" and in_grad):
            continue
        said.warnings.append(sentence.format(left))
    if any(c.batch_changed for c in every):
        said.warnings.append("it changes the batch in place.")
    if seen.adds and in_grad and seen.first.directions:
        said.findings.append(".grad: it adds to what is there, as backward() does.")
    elif seen.adds and not in_grad:
        said.problems.append(
            "what was in .grad before the call is in what it returns: it does not clear .grad first."
        )


def judge_noise(model: Part, passes: float, beyond: float, said: Said) -> list[float] | None:
    """Compare the noise with that of plain antithetic ES with as many forward passes.

    A pair of it has the price P r + 1 on a linear loss (P weights that are judged, r = |g|^2 of all weights / |g|^2
    of these), so F passes have 2 (P r + 1) / F; prices count calls, so their ratio is that of the variances at equal
    gain.

    Args:
        model: The model's part.
        passes: Forward passes in a call.
        beyond: r; 1 where all layers are judged.
        said: Where sentences go.

    Returns:
        The ratio and its 95 % interval; None without noise, or where no pass was seen.
    """
    value, low, high = model.price
    if not passes:
        said.warnings.append(
            "its forward passes were not seen (it does not call the module itself), so its price is not known."
        )
        return None
    if not value > 0:
        return None
    plain = 2 * (model.numel * beyond + 1) / passes
    ratio = [value / plain, low / plain, high / plain]
    text = (
        f"its noise is {spread(*ratio)} times (in variance) that of plain antithetic ES with {passes:.4g} forward "
        "passes"
    )
    if ratio[1] > NOISY:
        said.warnings.append(f"{text}.")
    else:
        said.findings.append(f"noise: {text}.")
    return ratio
