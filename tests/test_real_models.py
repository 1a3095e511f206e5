"""Architectures as people train them, small: probed by everything, equal to the naive loop, right in the mean.

Statistical tests look once at 64 blocks of as many copies as theory asks for (``copies_for``), with a false-alarm
rate of 1e-6 each, and see a fault of scale of 0.4 with 99.9 % chance.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

import gradprobe as gp
from gradprobe.problems.problem import Problem
from tests.networks import DRAWS, SIX, check_engines, check_mean, check_oracle, check_whole, seeded
from tests.real_models import MODELS, Plain, made
from tests.truth.checks import assert_same

ENCODER = {
    "encoder.layers.0.self_attn": (1, "sample"),
    "encoder.layers.0.norm1": (1, "sample"),
    "encoder.layers.0.linear1": (1, "sample"),
    "encoder.layers.0.linear2": (1, "sample"),
    "encoder.layers.0.norm2": (1, "sample"),
    "encoder.norm": (1, "sample"),
    "head": (1, "sample"),
}
BY_HAND = {
    "encoder": ENCODER,
    "time_major_encoder": ENCODER,
    "residual": dict.fromkeys(
        ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "shortcut.0", "shortcut.1", "fc"], (1, "sample")
    ),
    "tied": {
        "wte = lm_head": (2, "sample"),
        "wpe": (1, "copy"),
        "mix": (1, "sample"),
        "norm": (1, "sample"),
    },
    "parametrised": dict.fromkeys("035", (1, "sample")),
    "channels_last": dict.fromkeys("036", (1, "sample")),
}
SIGNLESS = {
    "encoder": {"encoder.layers.0.self_attn"},
    "time_major_encoder": {"encoder.layers.0.self_attn"},
    "parametrised": {"0", "3"},
}
"""Layers whose Jacobian has no known signs: ``alr`` and the LR part of ``a-hybrid`` refuse them."""

SOME = {
    "encoder": ["encoder.layers.0.self_attn", "encoder.layers.0.norm1", "encoder.layers.0.linear1"],
    "time_major_encoder": ["encoder.layers.0.self_attn", "encoder.norm", "head"],
    "residual": ["conv1", "bn2", "shortcut.0", "shortcut.1"],
    "tied": None,
    "parametrised": None,
    "channels_last": None,
}
"""A layer of each kind and place."""


@pytest.fixture(autouse=True)
def plain_attention() -> Iterator[None]:
    """The naive loop runs the user's module itself, without the fused path that hooks cannot reach."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("name", MODELS)
def test_probed_by_everything_and_left_as_it_was(name):
    signless = SIGNLESS.get(name, set())
    first = {"encoder": {"encoder.layers.0.self_attn"}, "parametrised": {"0", "3"}}  # ES in a-hybrid
    refused = {"alr": signless, "a-hybrid": signless - first.get(name.removeprefix("time_major_"), set())}
    check_whole(made(MODELS[name], 3 if name != "time_major_encoder" else 4), BY_HAND[name], refused)


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.where}-{draw.injection}")
@pytest.mark.parametrize("name", MODELS)
def test_naive_loop_agrees(name, draw):
    check_oracle(made(MODELS[name], 2), draw, SOME[name], engines=["tile", "vmap"])


EVERY, TRACED = {"tile", "vmap", "loop graph"}, {"vmap", "loop graph"}


@pytest.mark.parametrize(
    ("name", "names", "activations", "weights"),
    [
        ("encoder", SOME["encoder"][:2], EVERY, TRACED),
        ("time_major_encoder", SOME["time_major_encoder"][:1], EVERY, TRACED),
        ("residual", ["conv1"], EVERY, TRACED),
        ("residual", ["bn2"], EVERY, TRACED),
        ("residual", ["shortcut.0", "shortcut.1"], {"tile"}, set()),
        ("tied", ["wte = lm_head", "mix"], EVERY, TRACED),
        ("tied", ["wpe"], TRACED, TRACED),
        ("parametrised", ["0", "3"], EVERY, TRACED),
        ("channels_last", ["0", "3"], EVERY, TRACED),
    ],
)
def test_engines_agree(name, names, activations, weights):
    """vmap refuses noise that enters the right side of ``out += shortcut``; an embedding of places has no samples."""
    check_engines(made(MODELS[name], 4), {"activations": activations, "weights": weights}, names)


MEANS = [
    ("encoder", "encoder.layers.0.self_attn"),
    ("encoder", "encoder.layers.0.linear1"),
    ("time_major_encoder", "encoder.layers.0.self_attn"),
    ("time_major_encoder", "encoder.norm"),
    ("residual", "conv1"),
    ("residual", "bn2"),
    ("residual", "shortcut.0"),
    ("tied", "wte = lm_head"),
    ("tied", "mix"),
    ("parametrised", "0"),
    ("parametrised", "3"),
    ("channels_last", "0"),
]


@pytest.mark.parametrize(("name", "layer"), MEANS)
def test_mean_is_the_smoothed_gradient(name, layer):
    check_mean(made(MODELS[name], 16), layer, sees=0.4)


def test_the_fused_path_of_attention_gives_the_same_loss():
    """The user's own forward takes it; the problem does not, so that clean and noisy runs are alike."""
    problem = made(MODELS["encoder"], 3)
    torch.backends.mha.set_fastpath_enabled(True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nested tensors is in prototype stage")
        output = problem.module.eval()(**problem.inputs)
    own = F.cross_entropy(output, problem.target, reduction="none")
    torch.testing.assert_close(problem.clean_losses(), own, rtol=1e-12, atol=1e-12)


def test_padding_decides_nothing_under_weight_noise():
    """Whatever stands where a sequence has ended. LR's noise there adds variance that depends on it, and no bias."""
    problem = made(MODELS["encoder"], 4)
    x, padding = problem.inputs["x"], problem.inputs["padding"]
    other = torch.where(padding.unsqueeze(-1), 100.0, x)
    changed = Problem(problem.module, ({"x": other, "padding": padding}, problem.target))
    one, two = (gp.estimate(p, "es", copies=8, sigma=0.1) for p in (problem, changed))
    assert_same(one, two, 1e-9)


def test_the_layout_of_images_changes_no_number():
    """The same noise reaches the same pixels, however weights and inputs lie in memory."""
    problem = made(MODELS["channels_last"], 4)
    assert problem.inputs.is_contiguous(memory_format=torch.channels_last)
    assert not problem.parameters["0.weight"].is_contiguous()
    plain = Problem(
        copy.deepcopy(problem.module).to(memory_format=torch.contiguous_format),
        (problem.inputs.contiguous(), problem.target),
    )
    assert plain.parameters["0.weight"].is_contiguous()
    for spec in SIX:
        one, two = (gp.estimate(p, spec, copies=8, sigma=0.1) for p in (problem, plain))
        assert_same(one, two, 1e-9, spec)


# --- weights in bfloat16


def half(rows: int, precision: str = "float32") -> Problem:
    """Weights and inputs of bfloat16."""
    module, x = seeded(lambda: (Plain().bfloat16(), torch.randn(rows, 4).bfloat16()))
    return Problem(module, (x, torch.arange(rows) % 3), precision=precision, name="half")


@pytest.mark.parametrize("precision", ["float32", "as-is"])
def test_half_precision_is_probed_by_everything(precision):
    problem = half(4, precision)
    check_whole(problem, dict.fromkeys(["first", "second"], (1, "sample")), {})
    assert {p.dtype for p in problem.module.parameters()} == {torch.bfloat16}


def test_half_precision_runs_as_single_precision():
    """Bit for bit what a float32 copy of the same weights gives."""
    problem = half(4)
    single = Problem(copy.deepcopy(problem.module).float(), (problem.inputs.float(), problem.target))
    for spec in SIX:
        one, two = (gp.estimate(p, spec, copies=8, sigma=0.01) for p in (problem, single))
        assert all(torch.equal(one[n], two[n]) for n in two), spec


def test_naive_loop_agrees_on_half_precision_run_as_double():
    """The values of bfloat16 weights, in float64; the naive loop has no other way to be exact."""
    problem = half(4)
    double = Problem(copy.deepcopy(problem.module).double(), (problem.inputs.double(), problem.target))
    for draw in DRAWS:
        check_oracle(double, draw, engines=["tile", "vmap"])
    for spec in SIX:
        one, two = (gp.estimate(p, spec, copies=8, sigma=0.1) for p in (problem, double))
        assert_same(
            one, two, 1e-4, spec
        )  # losses of 1 round to 6e-8, sigma amplifies them tenfold, signs apart


@pytest.mark.parametrize(("sigma", "least", "most"), [(1.0, 0.0, 0.25), (1e-4, 1.0, float("inf"))])
def test_as_it_is_rounding_decides_at_a_small_sigma(sigma, least, most):
    """A loss of about 1 rounds to 2^-8 at each step; noise of 0.0001 moves it by 1e-4 or so.

    So at sigma = 1 the losses are right to a few percent, and at 0.0001 rounding is most of what is read.
    """
    as_is, single = (gp.estimate(half(16, p), "lr", copies=200, sigma=sigma) for p in ("as-is", "float32"))
    for name, exact in single.items():
        error = float((as_is[name].double() - exact.double()).norm() / exact.double().norm())
        print(f"sigma {sigma}, {name}: rounding is {error:.3f} of the estimate")
        assert least <= error <= most, name


def test_mean_of_half_precision_is_the_smoothed_gradient():
    problem = half(16)
    double = Problem(
        copy.deepcopy(problem.module).double(), (problem.inputs.double(), problem.target), name="half"
    )
    check_mean(double, "first", sees=0.4)
