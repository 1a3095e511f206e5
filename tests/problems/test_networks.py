"""The registered networks that need no extra: they train, are probed by everything, and hold their truths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import gradprobe as gp
from gradprobe.core.errors import UsageError
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.build import build
from gradprobe.problems.data import Data
from gradprobe.problems.problem import Problem
from tests.networks import (
    DRAWS,
    check_engines,
    check_mean,
    check_oracle,
    check_probed,
    check_training,
    message_of,
    seeded,
    tiny,
)
from tests.truth.checks import layers_of


def sentences(rows: int = 2) -> Problem:
    """An LSTM on the first three tokens of sentences; every second sentence ends before the third."""
    problem = tiny("lstm", "words", rows, features=2, hidden=3)
    tokens = problem.inputs[:, :3].clone()
    tokens[1::2, 2] = 0
    return Problem(problem.module, (tokens, problem.target), name="lstm")


TINY = {
    "resnet9": lambda rows=2: tiny("resnet9", "digits", rows, width=1),
    "resnet12": lambda rows=2: tiny("resnet12", "digits", rows, width=1),
    "resnet9 with batch norm": lambda rows=2: tiny("resnet9", "digits", rows, width=1, norm="batch"),
    "lstm": sentences,
    "attention": lambda rows=2: tiny("attention", "digits", rows, features=4, heads=2),
}
KINDS = {
    "resnet9": ["conv1", "conv4", "fc"],
    "resnet12": ["conv11", "fc"],
    "resnet9 with batch norm": ["conv2", "norm8"],
    "attention": ["position", "norm1", "query", "down"],
    "lstm": ["embedding", "recurrence.l0"],
}
"""A layer of each kind and place; the catalogue of tests/problems_small.py has more of each kind."""

CONVOLUTIONS = {"resnet9": 8, "resnet12": 11}
ATTENTION = "embed position norm1 query key value out norm2 up down head".split()


# --- they train


@pytest.mark.parametrize(
    ("model", "data", "epochs", "rate", "below", "above", "options"),
    [
        ("resnet9", "digits", 4, 2e-3, 0.7, 0.75, {}),
        ("resnet12", "digits", 4, 2e-3, 0.7, 0.75, {}),
        ("resnet9", "digits", 3, 2e-3, 0.3, 0.85, {"norm": "batch"}),
        ("lstm", "words", 4, 5e-3, 0.1, 0.95, {}),
        ("lstm", "words", 4, 5e-3, 0.1, 0.95, {"cell": "gru", "layers": 2}),
        ("lstm", "words", 10, 5e-3, 0.5, 0.7, {"cell": "rnn"}),
        ("attention", "digits", 8, 2e-3, 0.5, 0.8, {}),
    ],
)
def test_trains(model, data, epochs, rate, below, above, options):
    check_training(model, data, epochs, rate, below, above, **options)


# --- structure


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 17)])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_residual_networks_are_counted_as_named(model, norm, shape):
    module = NETWORKS.get(model)(shape, 7, width=3, norm=norm).eval()
    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == int(model.removeprefix("resnet")) == CONVOLUTIONS[model] + 1
    assert convolutions[0].out_channels == 3
    assert convolutions[-1].out_channels == 24
    assert module(torch.zeros(2, *shape)).shape == (2, 7)
    assert all((c.bias is None) == (norm == "batch") for c in convolutions)


def test_resnet9_is_what_its_docstring_says():
    """Written out once more."""
    module = seeded(lambda: NETWORKS.get("resnet9")((3, 16, 16), 5, width=2)).double()
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = [lambda t, n=n: getattr(module, f"conv{n}")(t).clamp_min(0) for n in range(1, 9)]
    pool = torch.nn.MaxPool2d(2)
    a = pool(step[1](step[0](x)))
    a = a + step[3](step[2](a))
    a = pool(step[5](pool(step[4](a))))
    a = a + step[7](step[6](a))
    torch.testing.assert_close(module.fc(a.flatten(2).max(2).values), module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_torchs_own(heads):
    """The written-out block against nn.TransformerEncoderLayer with the same weights."""
    problem = tiny("attention", "digits", 3, features=4, heads=heads)
    net = problem.module
    layer = torch.nn.TransformerEncoderLayer(4, heads, 8, 0.0, batch_first=True, norm_first=True).double()
    three = (net.query, net.key, net.value)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(torch.cat([m.weight for m in three]))
        layer.self_attn.in_proj_bias.copy_(torch.cat([m.bias for m in three]))
    pairs = [
        (layer.self_attn.out_proj, net.out),
        (layer.linear1, net.up),
        (layer.linear2, net.down),
        (layer.norm1, net.norm1),
        (layer.norm2, net.norm2),
    ]
    for theirs, mine in pairs:
        theirs.load_state_dict(mine.state_dict())
    rows = problem.inputs.squeeze(1)
    expected = net.head(layer(net.embed(rows) + net.position.weight).mean(1))
    torch.testing.assert_close(net(problem.inputs), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_sentences_do_not_depend_on_what_fills_them_up(cell):
    net = NETWORKS.get("lstm")(vocabulary=9, classes=3, cell=cell, layers=2, padding=0)
    tokens = torch.tensor([[3, 1, 4, 0, 0]])
    torch.testing.assert_close(net(tokens), net(tokens[:, :3]))
    plain = NETWORKS.get("lstm")(vocabulary=9, classes=3, cell=cell, layers=2)
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(plain(tokens[:, :3]), net(tokens))
    assert not torch.allclose(plain(tokens), net(tokens))


# --- data


def test_words_follow_their_rule():
    for data in map(DATASETS.get("words"), ("train", "test")):
        tokens, targets = data.inputs.numpy(), data.targets.numpy()
        assert tokens.max() < data.facts["vocabulary"]
        for sentence, kind in zip(tokens, targets, strict=True):
            length = int((sentence > 0).sum())
            assert 6 <= length <= 10
            assert (sentence[:length] > 0).all()
            a, b, c, d = (np.nonzero((sentence > 3 * r) & (sentence <= 3 * r + 3))[0] for r in range(4))
            assert a.size == b.size == c.size == d.size == 1
            assert kind == 2 * (a[0] < b[0]) + (c[0] < d[0])


def test_a_bag_of_words_stays_at_chance():
    """500 test sentences: 1/4 plus or minus five standard errors of 0.019."""
    train, test = (DATASETS.get("words")(split) for split in ("train", "test"))

    def bags(data):
        return torch.nn.functional.one_hot(data.inputs, data.facts["vocabulary"]).sum(1).numpy()

    fitted = LogisticRegression(max_iter=500).fit(bags(train), train.targets.numpy())
    assert abs(fitted.score(bags(test), test.targets.numpy()) - 0.25) < 0.097


@pytest.mark.parametrize("name", ["words", "communities"])
def test_made_up_data_are_the_same_every_time(name):
    load = DATASETS.get(name)
    one, other = load("train"), load("train")
    assert torch.equal(one.targets, other.targets)
    tensors = [x if isinstance(x, tuple) else (x,) for x in (one.inputs, other.inputs)]
    assert all(map(torch.equal, *tensors))
    assert "unknown split 'dev'" in message_of(lambda: load("dev"))


def test_communities_are_a_planted_partition():
    """Numbers of edges within five standard errors of what the chances say; splits divide the nodes."""
    train, test = (DATASETS.get("communities")(split) for split in ("train", "test"))
    x, edges = train.inputs
    assert x.shape == (120, 8)
    pairs = set(map(tuple, edges.T.tolist()))
    assert len(pairs) == edges.shape[1]
    assert all((b, a) in pairs and a != b for a, b in pairs)
    within = (train.targets[edges[0]] == train.targets[edges[1]]).sum().item() / 2
    for count, trials, chance in (
        (within, 4 * 30 * 29 / 2, 0.2),
        (edges.shape[1] / 2 - within, 6 * 900, 0.02),
    ):
        assert abs(count - trials * chance) < 5 * (trials * chance * (1 - chance)) ** 0.5
    assert ((train.weights > 0) ^ (test.weights > 0)).all()
    assert [float(d.weights.sum()) for d in (train, test)] == pytest.approx([1, 1])
    assert torch.bincount(train.targets[train.weights > 0]).tolist() == [10] * 4


def test_weights_of_whole_data_are_the_problems():
    class Net(torch.nn.Linear):
        def forward(self, x, edge_index):
            return super().forward(x)

    data = DATASETS.get("communities")("test")
    problem = Problem(Net(8, 4), data.batch(1), weights=data.weights)
    assert torch.equal(problem.weights, data.weights)
    with pytest.raises(UsageError, match="leave such rows out"):
        Data(torch.zeros(2, 1), torch.zeros(2), weights=torch.ones(2))


# --- they are probed


@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_residual_networks_are_probed_by_everything(model):
    names = [f"conv{n + 1}" for n in range(CONVOLUTIONS[model])]
    check_probed(gp.load_problem(model, batch_size=4, model_args={"width": 2}), [*names, "fc"], "sample", {})


def test_attention_is_probed_by_everything():
    check_probed(gp.load_problem("attention", batch_size=4), ATTENTION, "sample", {})


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_recurrent_networks_are_probed_by_everything(cell):
    """Noise on the sums before the gates, at each of the ten steps."""
    problem = gp.load_problem(
        "lstm", data="words", batch_size=4, model_args={"hidden": 4, "cell": cell, "layers": 2}
    )
    names = ["embedding", "recurrence.l0", "recurrence.l1", "head"]
    check_probed(
        problem, names, "sample", {"hsic": set(names[:-1])}
    )  # it compares inputs, and words are none
    assert [x.calls for x in layers_of(problem)] == [1, 10, 10, 1]


def test_batch_norm_is_probed_with_running_statistics():
    problem = gp.load_problem("resnet9", batch_size=4, model_args={"width": 2, "norm": "batch"})
    pairs = itertools.chain.from_iterable((f"conv{n}", f"norm{n}") for n in range(1, 9))
    check_probed(problem, [*pairs, "fc"], "sample", {})


@pytest.mark.parametrize("name", KINDS)
def test_engines_agree(name):
    engines = {"activations": {"tile", "vmap", "loop graph"}, "weights": {"vmap", "loop graph"}}
    check_engines(TINY[name](), engines, KINDS[name])


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: f"{draw.where}-{draw.injection}")
@pytest.mark.parametrize("name", KINDS)
def test_naive_loop_agrees(name, draw):
    check_oracle(TINY[name](), draw, KINDS[name])


# --- LR's mean is the smoothed gradient: 64 blocks, copies from theory, a false alarm of 1e-6 each


@pytest.mark.parametrize(
    ("model", "name", "sees"),
    [
        ("resnet9", "conv1", 0.5),
        ("resnet9", "conv8", 0.35),
        ("resnet12", "conv11", 0.35),
        ("attention", "position", 0.25),
        ("attention", "query", 0.45),
        ("attention", "norm2", 0.2),
        ("lstm", "embedding", 0.15),
        ("lstm", "recurrence.l0", 0.25),
        ("lstm", "head", 0.2),
    ],
)
def test_mean_is_the_smoothed_gradient(model, name, sees):
    check_mean(TINY[model](16), name, sees)


# --- bad input


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        ("resnet9", "digits", {"norm": "layer"}, ["unknown norm 'layer'", "none, batch"]),
        ("resnet9", "digits", {"width": 0}, ["width must be a positive whole number, not 0"]),
        ("resnet12", "digits", {"width": 1.5}, ["width must be a positive whole number"]),
        ("resnet12", "words", {}, ["model 'resnet12' needs images", "such as digits", "[10]"]),
        ("resnet9", "communities", {}, ["needs input_shape", "'communities' do not offer", "digits"]),
        ("resnet9", "digits", {"input_shape": (1, 4, 8)}, ["inputs of 4x8 are too small", "8x8"]),
        ("attention", "words", {}, ["model 'attention' needs images"]),
        ("attention", "digits", {"heads": 5}, ["heads must divide the features; 5 does not divide 32"]),
        ("attention", "digits", {"heads": 0}, ["heads must be a positive whole number"]),
        ("lstm", "digits", {}, ["needs vocabulary, which data 'digits' do not offer", "words"]),
        ("lstm", "words", {"cell": "lsmt"}, ["unknown cell 'lsmt'", "Did you mean 'lstm'"]),
        ("lstm", "words", {"hidden": -3}, ["hidden must be a positive whole number, not -3"]),
        ("lstm", "words", {"layers": True}, ["layers must be a positive whole number"]),
        ("lstm", "words", {"padding": -1}, ["padding must be a whole number from 0 on"]),
        ("lstm", "words", {"hiden": 3}, ["unknown option of model 'lstm' 'hiden'", "'hidden'"]),
    ],
)
def test_bad_options_get_one_sentence(model, data, options, words):
    found = DATASETS.get(data)("train")
    message = message_of(lambda: build(model, NETWORKS.get(model), found.offers, options, data))
    assert all(word in message for word in words), message


def test_every_data_set_says_what_it_offers():
    """What is written beside the summary, so that no data are loaded for a message, is what they offer."""
    for name in ("digits", "words", "communities"):
        data = DATASETS.get(name)("train")
        assert set(DATASETS.entry(name).meta["offers"]) <= set(data.offers)
