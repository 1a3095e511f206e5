"""What captions say about a path: how it was made, and what must not be read into it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core import spec
from gradprobe.plots._walkers import counted, diverged, known, left, point


def made(path: xr.Dataset) -> list[str]:
    """Sentences about function, optimiser, rates, noise and seeds.

    Args:
        path: A path from one start, or from several.
    """
    starts = path["start_position"].values
    where = f"from {point(starts)}" if starts.ndim == 1 else f"from {len(starts)} starts"
    seeds, steps = path.sizes["seed"], int(path["step"].values[-1])
    recorded = f" (one in {path.attrs['every']} and the last recorded)" if thinned(path) else ""
    said = [
        f"Descent on {path.attrs.get('function')} {where}: {steps} steps{recorded}, {seeds} "
        f"seed{'s'[: seeds > 1]} each, optimiser {path.attrs.get('optimizer')}, {_rates(path)}."
    ]
    said += _tuning(path) + _noise(path)
    words = {
        "bounds": "bounds: {}",
        "clip": "directions clipped at {:g}",
        "decay": "rate of step k divided by 1 + {:g} k",
    }
    held = [text.format(known(path, name)) for name, text in words.items() if known(path, name) is not None]
    said.append(("; ".join(held) if held else "No bounds, clipping or decay").capitalize() + ".")
    return said


def thinned(path: xr.Dataset) -> bool:
    """Whether steps were left out of the record."""
    return int(path.attrs.get("every", 1)) > 1


def counting(stay: bool, thin: bool) -> list[str]:
    """Sentences about the step at which a walker counts as there.

    Args:
        stay: Only walkers that stay count.
        thin: Steps were left out of the record.
    """
    said = ["A walker counts from the first recorded step from which on it stays."] if stay else []
    return said + ["What walkers do between two recorded steps is not seen."] * thin


def _rates(path: xr.Dataset) -> str:
    rates = [f"{float(r):.3g}" for r in path["lr"].values]
    labels = [str(e) for e in path["estimator"].values]
    if len(set(rates)) == 1:
        text = f"learning rate {rates[0]}{' for all' if len(labels) > 1 else ''}"
    else:
        text = "learning rates " + ", ".join(f"{r} ({e})" for e, r in zip(labels, rates, strict=True))
    if path.attrs.get("lr_rule") == "tuned":
        text += ", tuned for each method"
    if path.attrs.get("step_rule") == "normalised":
        text += ", every direction normalised to length 1"
    return text


def _tuning(path: xr.Dataset) -> list[str]:
    given: Any = known(path, "tuning")
    facts = json.loads(given) if isinstance(given, str) else given
    if not isinstance(facts, dict):
        return []
    rates = path["rate"].values if "rate" in path.coords else ()
    tried = f"of {len(rates)} rates from {min(rates):g} to {max(rates):g}, " if len(rates) else ""
    seeds = facts.get("seeds")
    over = f", over {seeds} other seed{'s'[: seeds != 1]}" if seeds else ""
    said = [f"Tuning: {tried}that with the lowest {_criterion(facts.get('criterion'))}{over}."]
    edge = [e for e in facts.get("at_edge", []) if e in path["estimator"].values]
    if edge:
        which = f"The rate{'s'[: len(edge) > 1]} of {_listed(edge)}"
        said.append(f"{which} {'lie' if len(edge) > 1 else 'lies'} at an end of the rates tried.")
    return said


def _criterion(name: Any) -> str:
    words = {
        "loss": "median of the last loss",
        "steps": "mean number of steps from which on walkers stay at a global minimum (twice the steps for one "
        "that does not)",
    }
    return words.get(str(name), f"{name}")


def _listed(names: list[str]) -> str:
    """Names as text: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _noise(path: xr.Dataset) -> list[str]:
    noisy = path["stochastic"].values.astype(bool)
    if not noisy.any():
        return []
    labels, sigmas = path["estimator"].values[noisy], path["sigma"].values[noisy]
    copies = path.attrs.get("copies")
    text = f"{copies} cop{'y' if copies == 1 else 'ies'} of noise a step"
    if len(set(sigmas)) == 1:
        return [f"{text}, sigma {sigmas[0]:g}."]
    each = ", ".join(f"{s:g} ({e})" for e, s in zip(labels, sigmas, strict=True))
    return [f"{text}, sigma {each}."]


def lost_walkers(path: xr.Dataset, mapped: bool = True) -> list[str]:
    """Sentences about walkers that left the frame or diverged, and about evaluations that were not finite.

    Args:
        path: A path.
        mapped: The figure has a map, whose frame can be left.
    """
    total = path.sizes["seed"] * path.sizes.get("start", 1)
    said = []
    if mapped:
        when = "recorded step" if thinned(path) else "step"
        out = f"were outside the frame at some {when} (not drawn there)"
        said.append(counted(left(path), total, out, f"No walker was outside the frame at any {when}."))
    said.append(counted(diverged(path), total, "diverged", "None diverged."))
    lost = path["lost"].sum([d for d in path["lost"].dims if d != "estimator"]).values
    some = {str(e): int(n) for e, n in zip(path["estimator"].values, lost, strict=True) if n > 0}
    if some:
        counts = ", ".join(f"{n} ({e})" for e, n in some.items())
        said.append(f"Noisy evaluations that were not finite, and counted as 0: {counts}.")
    return said


def cautions(path: xr.Dataset, forwards: bool) -> list[str]:
    """Sentences about what the comparison is not.

    Args:
        path: A path.
        forwards: The figure counts forward evaluations.
    """
    labels = [str(e) for e in path["estimator"].values]
    said = []
    if path.attrs.get("constant_input"):
        said.append(
            "The variables are the weights of a layer whose input is the constant 1, so LR is ES and ALR is AES "
            "here: the figure tests only the sign of the noise, not that of the input."
        )
    if forwards and any(spec.parse(e).name == "bp" for e in labels):
        said.append("A forward evaluation of BP does not count its backward pass.")
    if forwards and path.attrs.get("lr_rule") == "tuned":
        said.append("What tuning spent is not counted.")
    if len(labels) > 1 and _lengths_count(path):
        said += [
            f"{e} carries no 1/sigma: at one common learning rate its steps are {'short' if f < 1 else 'long'}er by "
            f"a factor of {f:.3g}."
            for e, f in zip(labels, path["shrinks"].values.astype(float), strict=True)
            if np.isfinite(f)
        ]
    return said


def _lengths_count(path: xr.Dataset) -> bool:
    """Whether steps are as long as directions times one common rate, and it is known how long those are."""
    rates = path["lr"].values
    return bool(
        "shrinks" in path.coords
        and path.attrs.get("lr_rule") == "given"
        and path.attrs.get("step_rule") == "raw"
        and known(path, "clip") is None
        and str(path.attrs.get("optimizer")).lower().startswith("sgd")
        and np.allclose(rates, rates[0])
    )
