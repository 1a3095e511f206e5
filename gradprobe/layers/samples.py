"""Whose loss the noise of a layer is credited with: does noise in a sample's rows move its loss alone?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from gradprobe.core.hooks import Call, first_tensor, intercept, with_first_tensor
from gradprobe.core.layer import Layer, paths
from gradprobe.core.protocols import Runnable
from gradprobe.core.rows import along, moved, row_masks

_COPY = "noise in one sample moves other samples' losses: credited with the copy's loss"


def credited(problem: Runnable, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, with the loss that their noise is credited with and the axis of the samples in their outputs."""
    if problem.loss_per == "copy":
        return [replace(x, credit="copy") if x.activations else x for x in layers]
    left = {x.name: _candidates(problem, x) for x in layers if x.activations}
    axes: dict[str, int] = {}
    while trial := {name: fits.pop(0) for name, fits in left.items() if fits and name not in axes}:
        axes |= _of_samples(problem, [replace(x, axis=trial[x.name]) for x in layers if x.name in trial])
    found = []
    for x in layers:
        mixes = x.activations and x.name not in axes
        found.append(replace(x, credit="copy", note=_COPY) if mixes else replace(x, axis=axes.get(x.name, 0)))
    return found


def _candidates(problem: Runnable, layer: Layer) -> list[int]:
    """Axes of a layer's outputs that are as long as there are samples, likeliest first."""
    size = problem.batch_size
    common = min(len(shape) for shape in layer.outputs)
    fits = [axis for axis in range(common) if all(shape[axis] == size for shape in layer.outputs)]
    # where they lie in the inputs is the likeliest
    return sorted(fits, key=lambda axis: axis != problem.batch_axis)


def _of_samples(problem: Runnable, layers: Sequence[Layer]) -> dict[str, int]:
    """Of some layers with axes, those along whose axis noise in some rows moves only those samples' losses.

    All are tried at once: noise that moves no other sample's loss from any of them moves none from each. Where it
    does, halves are tried. A model of a hundred layers takes as many forwards as one of a single layer.
    """
    middle = len(layers) // 2
    try:
        if _rows_are_samples(problem, layers):
            return {x.name: x.axis for x in layers}
    except Exception:  # much noise at once may break what less of it does not
        if not middle:
            raise
    return _of_samples(problem, layers[:middle]) | _of_samples(problem, layers[middle:]) if middle else {}


def _rows_are_samples(problem: Runnable, layers: Sequence[Layer]) -> bool:
    with torch.no_grad():
        clean = problem.evaluate()
        for mask in row_masks(problem.batch_size):
            chosen = mask.to(clean.device)
            if moved(_with_noisy_rows(problem, layers, chosen), clean)[~chosen].any():
                return False
    return True


def _with_noisy_rows(problem: Runnable, layers: Sequence[Layer], chosen: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    axes = {layer.name: layer.axis for layer in layers}

    def edit(call: Call, output: Any) -> Any:
        tensor = first_tensor(output)
        assert tensor is not None
        noise = torch.randn(tensor.shape, generator=generator).to(tensor) * (1 + tensor.std(correction=0))
        return with_first_tensor(output, tensor + noise * along(chosen, axes[call.layer], tensor.ndim))

    with intercept(problem.twin, paths(layers), edit) as calls:
        calls.restart()
        return problem.evaluate()
