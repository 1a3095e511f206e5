"""From a block of a draw to the directions of every read-out that shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import Call, intercept, map_tensors
from gradprobe.core.layer import Layer
from gradprobe.core.streams import Block, Streams
from gradprobe.engine.draw import Draw
from gradprobe.engine.preflight import choose_engine
from gradprobe.engine.run import Outcome, run
from gradprobe.engine.sites import Inputs, Site, paths
from gradprobe.estimators.readout import ReadOut, kept_copies
from gradprobe.layers import rule_for
from gradprobe.problems.problem import Problem

if TYPE_CHECKING:
    from gradprobe.estimators.base import Estimator

Directions = dict[str, torch.Tensor]


@dataclass
class Read:
    """What one block of a draw gave.

    Attributes:
        directions: For each read-out, parameter -> mean direction over the block.
        nonfinite: Copies that count as 0 because a loss was not finite.
    """

    directions: list[Directions]
    nonfinite: int


def planned_read(
    estimator: Estimator, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
) -> Read:
    """One block of an estimator that assigns a draw and a read-out to each layer.

    Returns:
        One direction, and the most copies that any of its draws lost.
    """
    assigned = estimator.assignment(layers)
    if assigned is None:
        raise UsageError(f"{type(estimator).__name__} defines neither directions nor assignment.")
    found: Directions = {}
    lost = 0
    with problem.frozen():
        for draw in dict.fromkeys(draw for draw, _ in assigned.values()):
            served = [layer for layer in layers if layer.name in assigned and assigned[layer.name][0] == draw]
            for unit in unit_layers(draw, served):
                readouts = list(dict.fromkeys(assigned[layer.name][1] for layer in unit))
                read = read_block(problem, draw, unit, readouts, block, streams)
                lost = max(lost, read.nonfinite)
                for layer in unit:
                    mine = read.directions[readouts.index(assigned[layer.name][1])]
                    found |= {name: mine[name] for name in layer.parameters}
    return Read([found], lost)


def unit_layers(draw: Draw, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers that are noisy together."""
    by_name = {layer.name: layer for layer in layers}
    return [[by_name[name] for name in names] for names in draw.units(list(by_name))]


def read_block(
    problem: Problem,
    draw: Draw,
    layers: Sequence[Layer],
    readouts: Sequence[ReadOut],
    block: Block,
    streams: Streams,
    engine: str = "auto",
) -> Read:
    """Run one block of a draw once and read it in several ways.

    Args:
        problem: The problem.
        draw: The draw.
        layers: The layers that are noisy together, in execution order.
        readouts: How to read it.
        block: Which copies.
        streams: Noise of the seed.
        engine: ``"auto"``, ``"loop"`` or ``"tile"``.

    Returns:
        A direction of every parameter of the layers, for every read-out: the mean over the block's copies.
        A copy with a loss that is not finite counts as 0, so that blocks stay alike however many they lost;
        the length shrinks by the share of finite copies.
    """
    names = tuple(layer.name for layer in layers)
    with problem.frozen():
        kind = (draw.where, draw.injection, draw.share)
        chosen = problem.once(
            ("engine", kind, names, engine), lambda: choose_engine(problem, draw, layers, engine)
        )
        clean = problem.clean_losses()
        if draw.where == "weights" and draw.share == "batch":
            clean = problem.total(clean)
        outcome = run(problem, draw, layers, block, streams, chosen)
        kept = kept_copies(outcome.losses, draw.antithetic)
        found = []
        for readout in readouts:
            centred = readout.centred(outcome.losses, clean, kept, draw.antithetic)
            centred = centred / block.copies
            read = _read_weights if draw.where == "weights" else _read_activations
            found.append(read(problem, layers, readout, outcome, centred, kept))
    return Read(found, int((~kept).sum()))


def _read_weights(
    problem: Problem,
    layers: Sequence[Layer],
    readout: ReadOut,
    outcome: Outcome,
    centred: torch.Tensor,
    kept: torch.Tensor,
) -> Directions:
    """Centred loss x score of the weights' noise, summed over copies (and samples)."""
    if outcome.draw.share == "sample":
        assert problem.weights is not None
        centred = centred * problem.weights
    found = {}
    for layer in layers:
        for number, name in enumerate(layer.parameters):
            score = readout.score(outcome, (layer.name, number))
            found[name] = torch.tensordot(centred.to(score.dtype), score, dims=centred.ndim)
    return found


def _read_activations(
    problem: Problem,
    layers: Sequence[Layer],
    readout: ReadOut,
    outcome: Outcome,
    centred: torch.Tensor,
    kept: torch.Tensor,
) -> Directions:
    """Cotangents of each call, averaged in activation space where the input is clean, pulled back by the rule."""
    found = {
        name: torch.zeros_like(problem.parameters[name]) for layer in layers for name in layer.parameters
    }
    for layer in layers:
        weighted = _credit(problem, layer, centred)
        for number in range(layer.calls):
            site = (layer.name, number)
            score = readout.score(outcome, site)
            factor = weighted.to(score.dtype).view(*weighted.shape, *[1] * (score.ndim - weighted.ndim))
            if site in _noisy_sites(outcome):
                for segment in outcome.segments:
                    cotangent = (factor[segment.copies] * score[segment.copies]).flatten(0, 1)
                    inputs = _cleared(segment.inputs[site], kept[segment.copies], problem.batch_size)
                    _add(found, problem, layer, inputs, cotangent, readout)
            else:
                inputs = _clean_inputs(problem, layers)[site]
                _add(found, problem, layer, inputs, (factor * score).sum(0), readout)
    return found


def _cleared(inputs: Inputs, kept: torch.Tensor, batch: int) -> Inputs:
    """The inputs with 0 for copies that are left out: their cotangent is 0, and 0 x inf would not be."""
    if bool(kept.all()):
        return inputs
    rows = kept.repeat_interleave(batch)

    def clear(t: torch.Tensor) -> torch.Tensor:
        if not t.is_floating_point():
            return t
        if len(kept) == 1:
            return torch.zeros_like(t)
        return (
            torch.where(rows.view(-1, *[1] * (t.ndim - 1)), t, 0.0) if t.ndim and len(t) == len(rows) else t
        )

    path, args, kwargs = inputs
    return path, map_tensors(clear, args), map_tensors(clear, kwargs)


def _noisy_sites(outcome: Outcome) -> set[Site]:
    return set(outcome.segments[0].inputs)


def _credit(problem: Problem, layer: Layer, centred: torch.Tensor) -> torch.Tensor:
    """The factor of each sample's cotangent ``[m, B]``: w_b times its own loss, or ``[m]``: the copy's loss."""
    if centred.ndim == 1:
        return centred
    assert problem.weights is not None
    return centred * problem.weights if layer.credit == "sample" else problem.total(centred)


def _add(
    found: Directions,
    problem: Problem,
    layer: Layer,
    inputs: Inputs,
    cotangent: torch.Tensor,
    readout: ReadOut,
) -> None:
    path, args, kwargs = inputs
    module = problem.twin.get_submodule(path)
    names = layer.modules[path]
    values = problem.memo(("values", path), lambda: problem.local_values(path))
    rule = rule_for(module)
    pulled = rule.pull_back(module, list(names), values, args, kwargs, cotangent, readout.encodes_input)
    for name, full in names.items():
        found[full] = found[full] + pulled[name]


def _clean_inputs(problem: Problem, layers: Sequence[Layer]) -> dict[Site, Inputs]:
    """Inputs of each layer's first call in a forward without noise."""

    def compute() -> dict[Site, Any]:
        seen: dict[Site, Any] = {}

        def note(call: Call, output: Any) -> Any:
            if call.number == 0:
                seen[call.layer, 0] = (call.path, call.args, call.kwargs)
            return output

        with torch.no_grad(), intercept(problem.twin, paths(layers), note, lambda c: c.number == 0) as calls:
            calls.restart()
            problem.evaluate()
        return seen

    return problem.memo(("inputs", tuple(layer.name for layer in layers)), compute)
