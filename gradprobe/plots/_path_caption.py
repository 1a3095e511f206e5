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
    recorded = (
        f", of which every {path.attrs['every']}th is recorded" if path.attrs.get("every", 1) > 1 else ""
    )
    said = [
        f"Descent on {path.attrs.get('function')} {where}: {steps} steps{recorded}, {seeds} "
        f"seed{'s'[: seeds > 1]} each, optimiser {path.attrs.get('optimizer')}, {_rates(path)}."
    ]
    noise = _noise(path)
    if noise:
        said.append(noise)
    words = {"bounds": "bounds: {}", "clip": "directions clipped at {}", "decay": "decay of the rate: {}"}
    held = [text.format(known(path, name)) for name, text in words.items() if known(path, name) is not None]
    said.append(("; ".join(held) if held else "No bounds, clipping or decay").capitalize() + ".")
    return said


def _rates(path: xr.Dataset) -> str:
    rates = [f"{float(r):.3g}" for r in path["lr"].values]
    labels = [str(e) for e in path["estimator"].values]
    if len(set(rates)) == 1:
        text = f"learning rate {rates[0]}{' for all' if len(labels) > 1 else ''}"
    else:
        text = "learning rates " + ", ".join(f"{r} ({e})" for e, r in zip(labels, rates, strict=True))
    if path.attrs.get("lr_rule") == "tuned":
        text += f", tuned for each method{_tuning(path)}"
    if path.attrs.get("step_rule") == "normalised":
        text += ", every direction normalised to length 1"
    return text


def _tuning(path: xr.Dataset) -> str:
    given: Any = known(path, "tuning")
    facts = json.loads(given) if isinstance(given, str) else given
    if not isinstance(facts, dict):
        return ""
    return " (" + ", ".join(f"{k}: {v}" for k, v in facts.items()) + ")"


def _noise(path: xr.Dataset) -> str:
    noisy = path["stochastic"].values.astype(bool)
    if not noisy.any():
        return ""
    labels, sigmas = path["estimator"].values[noisy], path["sigma"].values[noisy]
    copies = path.attrs.get("copies")
    text = f"{copies} cop{'y' if copies == 1 else 'ies'} of noise a step"
    if len(set(sigmas)) == 1:
        return f"{text}, sigma {sigmas[0]:g}.".capitalize()
    return f"{text}, sigma " + ", ".join(f"{s:g} ({e})" for e, s in zip(labels, sigmas, strict=True)) + "."


def lost_walkers(path: xr.Dataset, mapped: bool = True) -> list[str]:
    """Sentences about walkers that leave the frame or diverge, and about evaluations that were not finite.

    Args:
        path: A path.
        mapped: The figure has a map, whose frame can be left.
    """
    total = path.sizes["seed"] * path.sizes.get("start", 1)
    said = []
    if mapped:
        inside = "No walker leaves the frame."
        said.append(counted(left(path), total, "leave the frame at some step (not drawn there)", inside))
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
    surrogates = [e for e, t in zip(labels, path["target"].values, strict=True) if str(t) == "surrogate"]
    said = []
    if path.attrs.get("constant_input"):
        said.append(
            "The variables are the weights of a layer whose input is the constant 1, so LR is ES and ALR is AES "
            "here: the figure tests only the sign of the noise, not that of the input."
        )
    if forwards and any(spec.parse(e).name == "bp" for e in labels):
        said.append("A forward evaluation of BP does not count its backward pass.")
    rates = path["lr"].values
    alike = path.attrs.get("lr_rule") == "given" and path.attrs.get("step_rule") == "raw"
    if surrogates and len(labels) > 1 and alike and np.allclose(rates, rates[0], equal_nan=True):
        said.append(
            f"Sign-encoded methods ({', '.join(surrogates)}) carry no 1/sigma, so at one common learning rate "
            "their steps are shorter by a factor of about sigma*sqrt(2/pi)."
        )
    return said
