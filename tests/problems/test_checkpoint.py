from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gradprobe import UsageError, load_problem
from gradprobe.problems import DATASETS, NETWORKS
from gradprobe.problems.checkpoint import find_checkpoint, load_checkpoint


def network(**options: object) -> torch.nn.Module:
    return NETWORKS.get("resnet5")(input_shape=(1, 8, 8), classes=10, **options)


def test_resnet5_has_the_known_number_of_parameters() -> None:
    count = sum(p.numel() for p in NETWORKS.get("resnet5")().parameters())
    assert count == 20_410
    on_digits = {name: p.numel() for name, p in network().named_parameters()}
    assert on_digits["conv2.weight"] + on_digits["conv2.bias"] == 1_168
    assert sum(p.numel() for p in network(width=16).parameters()) > 4 * 10_000
    with pytest.raises(UsageError, match="too small"):
        NETWORKS.get("resnet5")(input_shape=(1, 4, 8))


def test_digits_have_a_fixed_split() -> None:
    train, test = (DATASETS.get("digits")(s) for s in ("train", "test"))
    assert (len(train.inputs), len(test.inputs)) == (1437, 360)
    assert train.input_shape == (1, 8, 8)
    assert float(train.inputs.max()) == 1.0
    assert test.targets[:5].tolist() == DATASETS.get("digits")("test").targets[:5].tolist()
    rows = {tuple(r.flatten().tolist()) for r in test.inputs}
    assert sum(tuple(r.flatten().tolist()) in rows for r in train.inputs) == 0
    with pytest.raises(UsageError, match="split"):
        DATASETS.get("digits")("validation")


@pytest.mark.parametrize(("name", "low", "high"), [("early", 0.2, 0.7), ("trained", 0.95, 1.0)])
def test_shipped_checkpoints_reach_what_their_metadata_say(name: str, low: float, high: float) -> None:
    from safetensors import safe_open

    model, test = network(), DATASETS.get("digits")("test")
    load_checkpoint(model, name)
    with torch.no_grad():
        accuracy = float((model(test.inputs).argmax(1) == test.targets).float().mean())
    assert low <= accuracy <= high
    with safe_open(find_checkpoint(name), "pt") as file:
        assert float(file.metadata()["test accuracy"]) == pytest.approx(accuracy, abs=0.003)


def test_both_formats_load(tmp_path: Path) -> None:
    model = network()
    save_file(model.state_dict(), tmp_path / "a.bin")
    torch.save(model.state_dict(), tmp_path / "b.anything")
    for file in ("a.bin", "b.anything"):
        other = network()
        facts = load_checkpoint(other, tmp_path / file)
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
        assert len(facts["checkpoint_sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"fc.weight": torch.zeros(5, 32)}, r"'fc.weight' is \[5, 32\] in the file"),
        (lambda s: {k.replace("conv1", "conf1"): v for k, v in s.items()}, "the file has 'conf1.weight'"),
        (lambda s: s | {"head.bias": torch.zeros(1)}, "'head.bias' is not in the model"),
        (lambda s: {f"x{k}": v for k, v in s.items()}, "0 of 10 tensors match"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, says: str, tmp_path: Path) -> None:
    save_file(change(network().state_dict()), tmp_path / "x.safetensors")
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError, match=says):
        load_checkpoint(model, tmp_path / "x.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_load_problem() -> None:
    state = torch.get_rng_state()
    problem = load_problem(checkpoint="trained", batch_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert problem.batch_size == 16
    assert problem.facts["checkpoint"] == "resnet5-digits-trained.safetensors"
    assert problem.facts["source"]["data"] == "digits"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "resnet-5"}, "Did you mean 'resnet5'"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"checkpoint": "nowhere.pt"}, "no checkpoint 'nowhere.pt'"),
        ({"batch_size": 5000}, "does not fit"),
        ({"batch_size": 0}, "positive whole number"),
        ({"model_args": {"wdth": 3}}, "unknown option of model"),
        ({"loss": "crossentropy"}, "Did you mean 'cross_entropy'"),
    ],
)
def test_bad_names(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_problem(**options)
