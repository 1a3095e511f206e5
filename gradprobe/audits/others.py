"""Further directions that each call is held against: the smoothed gradient, and gradients of other parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from gradprobe.audits.audited import Audited
from gradprobe.audits.measured import ALARM, MODEL, Part, Terms, Triple, gain_of, judged
from gradprobe.audits.scale import off
from gradprobe.core.layer import Layer
from gradprobe.stats._intervals import t_quantile
from gradprobe.stats._moments import moments

SHIFTS = 8
"""Most other parameters of its shape that each one is held against."""

Gradient = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Others:
    """Gradients of other parameters, for each parameter that shares its shape with some.

    Attributes:
        names: Name of the direction -> parameter -> the other parameter.
        directions: Name of the direction -> parameter -> gradient of the other one.
    """

    names: dict[str, dict[str, str]]
    directions: dict[str, dict[str, torch.Tensor]]


def others(gradient: Gradient) -> Others:
    """For each parameter the gradients of those with the same shape: directions ``"shift 1"``, ``"shift 2"``, ..."""
    found = Others({}, {})
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, g in gradient.items():
        by_shape.setdefault(tuple(g.shape), []).append(name)
    wide = {name: g.double() for name, g in gradient.items()}
    for group in by_shape.values():
        for shift in range(1, min(len(group), SHIFTS + 1)):
            turned = group[shift:] + group[:shift]
            pairs = dict(zip(group, turned, strict=True))
            found.names.setdefault(f"shift {shift}", {}).update(pairs)
            own = {p: wide[q] for p, q in pairs.items()}
            found.directions.setdefault(f"shift {shift}", {}).update(own)
    return found


def swapped(
    audited: Audited, known: Others, gradient: Gradient, layers: Sequence[Layer], parts: Sequence[Part]
) -> dict[str, str]:
    """Layers with a wrong length whose direction is the gradient of another parameter -> its name."""
    wrong = {x.name for x in parts if off(*x.gain[1:])}
    found = {}
    for layer in layers:
        if layer.name not in wrong:
            continue
        largest = max(layer.parameters, key=lambda p: gradient[p].numel())
        for name, pairs in known.names.items():
            if largest not in pairs:
                continue
            square = float(gradient[pairs[largest]].double().square().sum())
            products = {seed: [c[name][largest] for c in calls] for seed, calls in audited.products.items()}
            _, low, high = gain_of(products, square, ALARM / len(known.names)) if square else (0.0,) * 3
            if low > 0 and not off(low, high):
                found[layer.name] = pairs[largest]
    return found


def along_smoothed(
    audited: Audited, ds: xr.Dataset, layers: Sequence[Layer], exact: bool
) -> dict[str, tuple[Triple, float]]:
    """Gain and largest cosine against the smoothed gradient, for the model and each layer.

    Args:
        audited: What was called.
        ds: Its run.
        layers: The layers that were measured.
        exact: Whether there is no noise.
    """
    names = sorted(name for name in audited.too if name.startswith("smoothed"))
    found = {}
    for name, own, products in _groups(ds, layers, exact):
        parameters = [p for p in own if p in audited.too[names[0]]]
        along = np.array(  # [part, seed, call]
            [
                [
                    [sum(c[part][p] for p in parameters) for c in calls]
                    for _, calls in sorted(audited.products.items())
                ]
                for part in names
            ]
        )
        squares = np.array(
            [
                [sum(float((audited.too[a][p] * audited.too[b][p]).sum()) for p in parameters) for b in names]
                for a in names
            ]
        )
        level = ALARM / (1 if name == MODEL else len(layers))
        square = _square(squares)
        if square > 0:
            terms = Terms(along.mean(0), products, square)
            found[name] = judged(terms, level, exact, _doubt(along, squares, level))
    return found


def _square(products: np.ndarray) -> float:
    """|g|^2 without the noise of the parts: the mean product of different ones."""
    return float((products.sum() - np.trace(products)) / (len(products) * (len(products) - 1)))


def _doubt(along: np.ndarray, products: np.ndarray, level: float) -> float:
    """Half the width of the gain's interval that comes of the parts' noise, by leaving out one part at a time."""
    count = len(products)
    rest = []
    for i in range(count):
        kept = np.delete(np.arange(count), i)
        rest.append(along[kept].mean() / _square(products[np.ix_(kept, kept)]))
    se = np.sqrt((count - 1) * np.var(rest))
    return float(t_quantile(1 - level / 2, np.array(float(count))) * se)


def _groups(
    ds: xr.Dataset, layers: Sequence[Layer], exact: bool
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Name, parameters and products of the seeds of the model and of each layer."""
    every = [p for layer in layers for p in layer.parameters]
    model, each = moments(ds, "model", "bp"), moments(ds, "layer", "bp")
    places = {str(n): i for i, n in enumerate(each.coords["layer"])}
    for m, at, name, own in [
        (model, 0, MODEL, every),
        *((each, places[x.name], x.name, list(x.parameters)) for x in layers),
    ]:
        last = int(m.last()[0, at])
        yield name, own, m.sqnorm[0, at, :1, last, None] if exact else m.products[0, at]
