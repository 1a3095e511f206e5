"""What a request says about itself: the backprop gradient, and the entries of ``run.json``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.streams import NOISE_VERSION, Block, Streams
from gradprobe.estimators.bp import BP
from gradprobe.probes.checks import layers_of, unused_layers
from gradprobe.probes.plan import Plan
from gradprobe.probes.references import Known
from gradprobe.probes.settings import Settings
from gradprobe.problems.device import device_name
from gradprobe.problems.problem import Problem
from gradprobe.store.info import RunInfo


def backprop(problem: Problem, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
    """The backprop gradient by parameter.

    Args:
        problem: The problem.
        layers: All of its layers.

    Raises:
        UsageError: It is not finite.
    """
    gradient = BP().directions(problem, layers, Block(0, 1), Streams(0, 0))
    for layer in layers:
        if not all(bool(gradient[p].isfinite().all()) for p in layer.parameters):
            raise UsageError(
                f"the backprop gradient of layer {layer.name!r} is not finite, so there is nothing to compare "
                "with; check the checkpoint and the batch."
            )
    return gradient


def run_info(
    problem: Problem,
    chosen: Sequence[Layer],
    known: Known,
    plan: Plan,
    settings: Settings,
    seeds: list[int],
    layers: str | Sequence[str] | None,
) -> RunInfo:
    """What ``run.json`` holds of a request; engines and what is kept are filled in later.

    Args:
        problem: The problem.
        chosen: The layers that are probed, and the levels of noise.
        known: References without noise.
        plan: What is computed.
        settings: What all units share.
        seeds: The seeds.
        layers: The layers as they were asked for.
    """
    identity = problem.fingerprints() | {
        "block": settings.block,
        "root_seed": settings.root_seed,
        "noise_version": _noise_version(problem, settings),
    }
    configuration = (
        dict(problem.facts.get("source", {}))
        | {
            "estimators": [view.spec or view.label for view in plan.views],
            "copies": settings.copies,
            "seeds": seeds,
            "block": settings.block,
            "layers": layers if layers is None or isinstance(layers, str) else list(layers),
            "reference": list(settings.references),
            "reference_copies": settings.reference_copies,
            "root_seed": settings.root_seed,
            "engine": settings.engine,
        }
        | ({"per_sample": True} if settings.per_sample else {})
        | ({"storage": settings.storage} if settings.storage != "float32" else {})
    )
    levels = [layer for layer in chosen if layer.level_of]
    weights = [p for layer in layers_of(problem) for p in layer.parameters]
    squares = {name: float((known["bp"][name].double() ** 2).sum()) for name in weights}
    facts = {k: v for k, v in problem.facts.items() if k != "source"} | {
        "problem": problem.name,
        "loss_per": problem.loss_per,
        "batch_size": problem.samples,
        "unused_layers": unused_layers(problem),
        "clean_loss": float(problem.total(problem.clean_losses())),
        "gradient_sqnorm": squares,
        "total_reference_sqnorm": sum(squares.values()),
    }
    if "dataset" in known:
        whole = known["dataset"]
        facts["dataset_sqnorm"] = {name: float((whole[name].double() ** 2).sum()) for name in weights}
        facts["dataset_dot"] = {
            name: float((known["bp"][name].double() * whole[name]).sum()) for name in weights
        }
    if settings.per_sample and problem.loss_per == "sample":
        facts["sample_loss"] = problem.clean_losses().tolist()
    names = [layer.name for layer in chosen]
    return RunInfo(
        identity,
        configuration,
        [*layers_of(problem), *levels],
        names,
        plan.views,
        seeds,
        list(settings.references),
        facts,
    )


def _noise_version(problem: Problem, settings: Settings) -> int | str:
    """What the numbers behind a key depend on."""
    name = device_name(problem.device) if settings.drawn_on == "device" else "cpu"
    return NOISE_VERSION if name == "cpu" else f"{NOISE_VERSION} on {name}"
