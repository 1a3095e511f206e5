"""Planted faults: each is put into the package, and the check that guards against it must fail.

A fault that every check survives would mean that the checks are blind to it.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from gradprobe.core import hooks
from gradprobe.core.streams import Streams
from gradprobe.engine import moving
from gradprobe.engine import run as engine
from gradprobe.engine.draw import Draw
from gradprobe.engine.noise.gaussian import Gaussian
from gradprobe.engine.parts import Part
from gradprobe.estimators import blockread, draws
from gradprobe.estimators.base import make
from gradprobe.estimators.readout import ReadOut
from gradprobe.layers.gates import GatesRule
from gradprobe.layers.generic import Generic, SignOfInput
from gradprobe.problems.problem import Problem
from tests.problems_small import build
from tests.truth import naive
from tests.truth.checks import (
    check_chain,
    check_draw,
    check_forwards,
    check_key_components,
    check_keys_decide,
    check_no_trace,
    check_recurrence,
    known,
    layers_of,
)
from tests.truth.test_streams import numbers

LAYERWISE = Draw(sigma=0.3)
JOINT = Draw(injection="joint", sigma=0.3)
ES = Draw("weights", share="batch", sigma=0.3)


def oracle(name: str, draw: Draw, copies: int = 4):
    problem, layers = known(name)
    return lambda: check_draw(problem, draw, layers, copies)


def mean(*args, **options):
    return lambda: check_chain(*args, **options)


def keys(spec: str, name: str = "mlp"):
    problem, layers = known(name)
    return lambda: check_keys_decide(make(spec).estimator, problem, layers)


def trace(spec: str, name: str = "mlp"):
    def check():
        problem = build(name)
        layers = layers_of(problem)
        check_no_trace(make(spec).estimator, problem, layers)

    return check


def forwards(spec: str, name: str = "mlp"):
    return lambda: check_forwards(make(spec).estimator, *known(name))


def streams():
    check_key_components(numbers)


# --- the faults: each takes pytest's monkeypatch


def score_times(factor):
    def plant(patch):
        true = ReadOut.score
        patch.setattr(ReadOut, "score", lambda self, *a: factor * true(self, *a))

    return plant


def noise_times(factor):
    """Added noise that is larger than the score believes."""

    def plant(patch):
        true = engine.add_noise
        patch.setattr(
            engine, "add_noise", lambda output, draw, name, eps: true(output, draw, name, factor * eps)
        )

    return plant


def samples_summed(patch):
    """1/B missing: sums over samples where a mean belongs."""

    def credit(problem, layer, centred):
        return centred if centred.ndim == 1 or layer.credit == "sample" else centred.sum(-1)

    patch.setattr(blockread, "credit", credit)


def copy_loss_over_samples(patch):
    """1/B where it does not belong: on the loss of the whole copy."""
    true = blockread.credit

    def credit(problem, layer, centred):
        return true(problem, layer, centred) / (5 if centred.ndim == 1 else 1)

    patch.setattr(blockread, "credit", credit)


def neighbours_loss(patch):
    """Each sample is credited with the next sample's loss."""
    true = blockread.credit
    patch.setattr(blockread, "credit", lambda p, x, c: true(p, x, c.roll(1, -1) if c.ndim > 1 else c))


def stream_without(part):
    def plant(patch):
        true = Streams.key

        def key(self, family, where, layer, call, block):
            given = {"family": family, "where": where, "layer": layer, "call": call, "block": block}
            if part in given:
                given[part] = type(given[part])()
                return true(self, **given)
            default = "draw" if part == "purpose" else 0
            return true(dataclasses.replace(self, **{part: default}), **given)

        patch.setattr(Streams, "key", key)

    return plant


def noise_of(change):
    """The engine's noise after a change of what it was asked for."""

    def plant(patch):
        true = engine.make_noise

        def make_noise(problem, draw, layers, parts, streams, partners):
            return change(true, problem, draw, layers, parts, streams, partners)

        patch.setattr(engine, "make_noise", make_noise)

    return plant


@noise_of
def same_for_all_blocks(true, problem, draw, layers, parts, *rest):
    return true(problem, draw, layers, [dataclasses.replace(part, block=0) for part in parts], *rest)


@noise_of
def same_for_all_calls(true, *args):
    noise = true(*args)
    return {(name, number): noise[name, 0] for name, number in noise}


@noise_of
def same_for_all_layers(true, *args):
    noise = true(*args)
    first = next(iter(noise.values()))
    return {site: first if eps.shape == first.shape else eps for site, eps in noise.items()}


@noise_of
def same_for_all_copies(true, *args):
    return {site: eps[:1].expand_as(eps) for site, eps in true(*args).items()}


@noise_of
def same_for_all_samples(true, *args):
    return {site: eps[:, :1].expand_as(eps) for site, eps in true(*args).items()}


@noise_of
def partners_not_opposite(true, problem, draw, layers, parts, streams, partners):
    alone = [Part(part.block, range(part.copies)) for part in parts]
    return true(problem, draw, layers, alone, streams, partners)


def same_weights_for_partners(patch):
    true = moving.signed_rows
    patch.setattr(moving, "signed_rows", lambda forward: ((row, 1) for row, _ in true(forward)))


def clean_inputs(patch):
    """Cotangents are pulled back at the input without noise."""
    true = draws.run

    def run(problem, draw, layers, *args):
        outcome = true(problem, draw, layers, *args)
        calls = naive.run(problem, layers)[1]
        for segment in outcome.segments:
            copies = segment.copies.stop - segment.copies.start
            for site in segment.inputs:
                path, inputs, kwargs = calls[site]
                tiled = tuple(t.repeat(copies, *[1] * (t.ndim - 1)) for t in inputs)
                segment.inputs[site] = (path, tiled, kwargs)
        return outcome

    patch.setattr(draws, "run", run)


def hook_left(patch):
    true = engine.intercept

    def intercept(model, *args, **options):
        next(model.children()).register_forward_hook(lambda *_: None)
        return true(model, *args, **options)

    patch.setattr(engine, "intercept", intercept)


def training_flag_left(patch):
    true = engine._loop

    def loop(forward):
        forward.problem.twin.train()
        return true(forward)

    patch.setattr(engine, "_loop", loop)


def gradient_left(patch):
    """Backprop by ``backward()`` on the user's own parameters."""
    true = Generic.pull_back

    def pull_back(self, module, values, *args):
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        return true(self, module, values, *args)

    patch.setattr(SignOfInput, "pull_back", pull_back)


def weights_written(patch):
    """Noise is added to the model's own weights and taken off again: off by rounding."""
    true = engine._perturbed

    def perturbed(forward):
        for p in forward.problem.module.parameters():
            p.data.add_(0.1).sub_(0.1)
        return true(forward)

    patch.setattr(engine, "_perturbed", perturbed)


def set_globally(patch):
    """The sampler seeds and uses torch's global generator."""

    def fill(self, words, out):
        torch.manual_seed(int(words[0] % 2**31))
        out.copy_(torch.randn(len(out)))

    patch.setattr(Gaussian, "fill", fill)
    patch.setattr(hooks, "untouched_globals", contextlib.nullcontext)


def ignores_the_key(patch):
    patch.setattr(Gaussian, "fill", lambda self, words, out: out.fill_(1.0))


def keeps_a_state(patch):
    """A generator of its own that runs on from call to call."""
    own = torch.Generator().manual_seed(0)
    patch.setattr(Gaussian, "fill", lambda self, words, out: out.normal_(generator=own))


def sign_after_the_sum(patch):
    """The sign of the pulled-back cotangent instead of the cotangent pulled back by signs."""

    def pull_back(self, module, own, values, args, kwargs, cotangent, encode=False):
        exact = Generic.pull_back(self, module, own, values, args, kwargs, cotangent, False)
        return {n: v.sign() * cotangent.abs().mean() for n, v in exact.items()} if encode else exact

    patch.setattr(SignOfInput, "pull_back", pull_back)


def sign_left_out(patch):
    patch.setattr(SignOfInput, "encoded", lambda self, module, args, kwargs: (args, kwargs))


def sign_of_the_input_alone(patch):
    """The hidden state of a recurrent layer keeps its size."""
    patch.setattr(
        GatesRule, "encoded", lambda self, module, args, kwargs: ((args[0].sign(), args[1]), kwargs)
    )


def sigma_in_signs(patch):
    """1/sigma kept where the noise is encoded by its sign."""
    patch.setattr(ReadOut, "scale", lambda self, draw, layer: 1.0 / draw.sigma_of(layer))


def partner_in_the_centre(patch):
    true = ReadOut.centred
    patch.setattr(ReadOut, "centred", lambda self, x, c, kept, paired: true(self, x, c, kept, False))


def self_in_the_centre(patch):
    true = ReadOut.centred

    def centred(self, losses, clean, kept, paired):
        if self.centre == "mean":
            return losses - losses.mean(0)
        return true(self, losses, clean, kept, paired)

    patch.setattr(ReadOut, "centred", centred)


def one_forward_more(patch):
    true = engine._perturbed

    def perturbed(forward):
        forward.problem.evaluate()
        return true(forward)

    patch.setattr(engine, "_perturbed", perturbed)


def loss_in_float16(patch):
    true = Problem.evaluate
    patch.setattr(Problem, "evaluate", lambda self, *a, **k: true(self, *a, **k).half().double())


PAIRED = Draw(antithetic=True, sigma=0.3)
PAIRED_WEIGHTS = Draw("weights", antithetic=True, share="batch", sigma=0.3)
FAULTS = [
    ("sign flipped", score_times(-1), oracle("mlp", LAYERWISE)),
    ("sign flipped, mean", score_times(-1), mean(copies=256, sees=0.2)),
    ("scale x1.05", score_times(1.05), oracle("mlp", ES)),
    ("scale x1.05, mean", score_times(1.05), mean()),
    ("scale x0.95, mean", score_times(0.95), mean()),
    ("noise x1.05", noise_times(1.05), oracle("mlp", JOINT)),
    ("noise x1.05, mean", noise_times(1.05), mean()),
    ("1/B missing", samples_summed, oracle("mlp", LAYERWISE)),
    ("1/B missing, weighted", samples_summed, oracle("weighted", LAYERWISE)),
    ("1/B missing, mean", samples_summed, mean(copies=256, sees=0.2)),
    ("1/B on the copy's loss", copy_loss_over_samples, oracle("scalar-loss", LAYERWISE)),
    ("the neighbour's loss", neighbours_loss, oracle("mlp", LAYERWISE)),
    ("the neighbour's loss, mean", neighbours_loss, mean(copies=256, sees=0.2)),
    *(
        (f"stream without {part}", stream_without(part), streams)
        for part in ("root", "seed", "purpose", "family", "where", "layer", "call", "block")
    ),
    ("seed ignored", stream_without("seed"), keys("lr")),
    ("block ignored", stream_without("block"), keys("es")),
    ("layers share a stream, mean", stream_without("layer"), mean(injection="joint")),
    ("calls share a stream, mean", stream_without("call"), check_recurrence),
    ("one noise for all blocks", same_for_all_blocks, oracle("mlp", LAYERWISE)),
    ("one noise for all blocks, keys", same_for_all_blocks, keys("lr")),
    ("one noise for all calls", same_for_all_calls, oracle("recurrent", LAYERWISE)),
    ("one noise for all calls, mean", same_for_all_calls, check_recurrence),
    ("one noise for all layers", same_for_all_layers, oracle("repeated-module", JOINT)),
    ("one noise for all layers, mean", same_for_all_layers, mean(injection="joint")),
    ("one noise for all copies", same_for_all_copies, oracle("mlp", LAYERWISE)),
    ("one noise for all samples", same_for_all_samples, oracle("mlp", LAYERWISE)),
    ("partners not opposite", partners_not_opposite, oracle("mlp", PAIRED)),
    ("partners with the same weights", same_weights_for_partners, oracle("mlp", PAIRED_WEIGHTS)),
    ("clean input, joint", clean_inputs, oracle("mlp", JOINT)),
    ("clean input, joint, mean", clean_inputs, mean(injection="joint")),
    ("clean input, later calls", clean_inputs, oracle("recurrent", LAYERWISE)),
    ("clean input, later steps", clean_inputs, oracle("lstm", LAYERWISE)),
    ("one noise for all steps", same_for_all_calls, oracle("lstm", LAYERWISE)),
    ("clean input, later calls, mean", clean_inputs, check_recurrence),
    ("sign after the sum, positions", sign_after_the_sum, oracle("cnn", LAYERWISE)),
    ("sign after the sum, time steps", sign_after_the_sum, oracle("sequence", LAYERWISE)),
    ("sign after the sum, calls", sign_after_the_sum, oracle("recurrent", LAYERWISE)),
    ("sign of the input left out", sign_left_out, oracle("mlp", LAYERWISE)),
    ("sign of the state left out", sign_of_the_input_alone, oracle("lstm", LAYERWISE)),
    ("1/sigma beside signs", sigma_in_signs, oracle("mlp", ES)),
    ("partner in the centre", partner_in_the_centre, oracle("mlp", PAIRED)),
    ("self in the centre", self_in_the_centre, oracle("mlp", LAYERWISE)),
    ("hook left", hook_left, trace("lr")),
    ("training flag left", training_flag_left, trace("lr")),
    ("gradient left", gradient_left, trace("lr")),
    ("weights written", weights_written, trace("es")),
    ("global generator", set_globally, trace("lr")),
    ("noise ignores its key", ignores_the_key, keys("lr")),
    ("noise keeps a state", keeps_a_state, keys("lr")),
    ("a forward more", one_forward_more, forwards("es")),
    ("losses in half precision", loss_in_float16, oracle("mlp", LAYERWISE)),
]


@pytest.mark.parametrize(("plant", "check"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_planted_fault_is_caught(monkeypatch, plant, check):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(
    "check",
    [
        oracle("mlp", LAYERWISE),
        oracle("mlp", JOINT),
        oracle("mlp", ES),
        oracle("mlp", PAIRED),
        oracle("weighted", LAYERWISE),
        oracle("scalar-loss", LAYERWISE),
        oracle("recurrent", LAYERWISE),
        oracle("lstm", LAYERWISE),
        oracle("repeated-module", JOINT),
        oracle("cnn", LAYERWISE),
        oracle("sequence", LAYERWISE),
        mean(copies=256, sees=0.2),
        mean(),
        mean(injection="joint"),
        check_recurrence,
        streams,
        keys("lr"),
        keys("es"),
        trace("lr"),
        trace("es"),
        forwards("es"),
    ],
)
def test_without_a_fault_the_checks_pass(check):
    check()
