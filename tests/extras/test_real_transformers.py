"""Models of transformers, randomly initialised from tiny configurations: nothing is downloaded.

Statistical tests as in tests/test_real_models.py: 64 blocks of as many copies as theory asks for, one look, a
false-alarm rate of 1e-6 each; a fault of scale of 0.4 is seen with 99.9 % chance.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra hf")

import transformers

from gradprobe.engine.preflight import agrees
from gradprobe.layers import rule_name
from gradprobe.problems.problem import Problem
from tests.networks import (
    ACTIVATIONS,
    DRAWS,
    WEIGHTS,
    check_mean,
    check_oracle,
    check_whole,
    chosen,
    seeded,
)
from tests.real_models import cast, next_token
from tests.truth import naive

TINY = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 5}
WIDE = {"initializer_range": 0.5, "num_labels": 3}
"""Weights large enough for a gradient to speak of; the default of 0.02 is for a hundred times the width."""


def vit(rows: int) -> tuple:
    config = transformers.ViTConfig(**TINY, **WIDE, image_size=4, patch_size=2, num_channels=1)
    inputs = {"pixel_values": torch.randn(rows, 1, 4, 4)}
    return transformers.ViTForImageClassification(config), inputs, torch.arange(rows) % 3, "cross_entropy"


def bert(rows: int) -> tuple:
    """Every second text ends a token early."""
    config = transformers.BertConfig(**TINY, **WIDE, vocab_size=7, max_position_embeddings=4)
    mask = torch.ones(rows, 3, dtype=torch.long)
    mask[1::2, -1] = 0
    inputs = {"input_ids": torch.randint(1, 7, (rows, 3)), "attention_mask": mask}
    return transformers.BertForSequenceClassification(config), inputs, torch.arange(rows) % 3, "cross_entropy"


def gpt2(rows: int) -> tuple:
    """The output layer's weight is the embedding's."""
    config = transformers.GPT2Config(
        vocab_size=6,
        n_positions=4,
        n_embd=4,
        n_layer=1,
        n_head=2,
        n_inner=5,
        initializer_range=0.5,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    ids = torch.randint(6, (rows, 3))
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids}, ids, next_token


MODELS = {"vit": vit, "bert": bert, "gpt2": gpt2}


def made(name: str, rows: int, dtype: torch.dtype = torch.float64) -> Problem:
    module, inputs, target, loss = seeded(lambda: MODELS[name](rows))
    inputs = {k: cast(v, dtype) for k, v in inputs.items()}
    return Problem(module.to(dtype), (inputs, target), loss, name=name)


BERT = "bert.encoder.layer.0."
BY_HAND = {
    "vit": [
        "vit.embeddings",
        "vit.embeddings.patch_embeddings.projection",
        "vit.layers.0.layernorm_before",
        *(f"vit.layers.0.attention.{x}_proj" for x in "qkvo"),
        "vit.layers.0.layernorm_after",
        "vit.layers.0.mlp.fc1",
        "vit.layers.0.mlp.fc2",
        "vit.layernorm",
        "classifier",
    ],
    "bert": [
        *(f"bert.embeddings.{x}_embeddings" for x in ("word", "token_type", "position")),
        "bert.embeddings.LayerNorm",
        *(f"{BERT}attention.self.{x}" for x in ("query", "key", "value")),
        *(f"{BERT}{x}" for x in ("attention.output.dense", "attention.output.LayerNorm")),
        *(f"{BERT}{x}" for x in ("intermediate.dense", "output.dense", "output.LayerNorm")),
        "bert.pooler.dense",
        "classifier",
    ],
    "gpt2": [
        "transformer.wte = lm_head",
        "transformer.wpe",
        *(f"transformer.h.0.{x}" for x in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2")),
        *(f"transformer.h.0.mlp.{x}" for x in ("c_fc", "c_proj")),
        "transformer.ln_f",
    ],
}
PLACES = {"bert.embeddings.position_embeddings", "transformer.wpe"}
"""One output for all samples: credited with the copy's loss."""

SOME = {
    "vit": ["vit.embeddings", "vit.embeddings.patch_embeddings.projection", "vit.layers.0.attention.k_proj"],
    "bert": [f"{BERT}attention.self.query", "bert.embeddings.position_embeddings", "bert.pooler.dense"],
    "gpt2": ["transformer.wte = lm_head", "transformer.h.0.attn.c_attn", "transformer.ln_f"],
}


@pytest.mark.parametrize("name", MODELS)
def test_probed_by_everything_and_left_as_it_was(name):
    """The class token and the places of a ViT are a layer whose signs are not known."""
    expected = {x: (2 if " = " in x else 1, "copy" if x in PLACES else "sample") for x in BY_HAND[name]}
    options = {
        "smoothed_by": "pathwise",
        "reference_copies": 8,
    }  # to see whether that holds takes the most time
    check_whole(made(name, 4), expected, {"alr": {"vit.embeddings"}}, **options)


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.where}-{draw.injection}")
@pytest.mark.parametrize("name", MODELS)
def test_naive_loop_agrees(name, draw):
    """Under joint noise a layer around others is refused, and one noise for all samples of a place."""
    names = SOME[name][1:] if name == "vit" and draw.injection == "joint" else SOME[name]
    check_oracle(made(name, 2), draw, names, engines=["tile", "vmap"])


@pytest.mark.parametrize("name", MODELS)
def test_engines_agree(name):
    """Without tracing: the loop, copies folded into the batch, and vmap agree."""
    names = [x for x in SOME[name] if x not in PLACES]
    problem = made(name, 4)
    with problem.frozen():
        for layer in chosen(problem, names):
            assert agrees(problem, ACTIVATIONS, [layer], "tile")
            assert agrees(problem, ACTIVATIONS, [layer], "vmap")
            assert agrees(problem, WEIGHTS, [layer], "vmap")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit", "vit.embeddings"),
        ("vit", "vit.layers.0.attention.q_proj"),
        ("bert", f"{BERT}attention.self.value"),
        ("bert", f"{BERT}intermediate.dense"),
        ("gpt2", "transformer.wte = lm_head"),
        ("gpt2", "transformer.h.0.attn.c_attn"),
    ],
)
def test_mean_is_the_smoothed_gradient(name, layer):
    check_mean(made(name, 16), layer, sees=0.4)


def test_signs_of_a_conv1d_are_those_of_its_input():
    assert rule_name(made("gpt2", 2).module.transformer.h[0].attn.c_attn) == "linear"


def rounding(layer: str, sigma: float) -> float:
    """Standard deviation of what float32 adds to the centred losses, in units of their own, over 32 copies."""
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    module = seeded(
        lambda: transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, **size))
    )
    ids = torch.arange(64).view(8, 8) % 50
    found = []
    for dtype in (torch.float32, torch.float64):
        problem = Problem(copy.deepcopy(module).to(dtype), ({"input_ids": ids}, torch.arange(8) % 2))
        (mine,) = chosen(problem, [layer])
        generator, clean = torch.Generator().manual_seed(0), naive.run(problem)[0]
        noise = [sigma * torch.randn(mine.outputs[0], generator=generator).double() for _ in range(32)]
        runs = [naive.run(problem, [mine], {(layer, 0): eps})[0] - clean for eps in noise]
        found.append(torch.stack(runs).double())
    single, double = found
    return float((single - double).std() / double.std())


def test_single_precision_rounds_small_noise_on_queries_and_keys_away():
    """At the default initialisation a loss hardly depends on who attends to whom: use float64 or a larger sigma."""
    for name in ("query", "key"):
        assert rounding(f"{BERT}attention.self.{name}", 0.01) > 1
    assert rounding("classifier", 0.01) < 0.01


def test_a_probe_of_all_layers_of_twelve_stays_within_its_memory():
    """LR and ES on all 100 layers of a ViT of width 192: the peak over the model and one forward and backward."""
    budget = 48
    script = [sys.executable, "-m", "tests.extras.vit_memory", f"{budget}MiB"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["layers"] == 100
    assert found["statuses"] == ["ok"]
    assert found["peak"] - found["clean"] <= budget
