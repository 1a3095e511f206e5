"""Names of wrappers are undone exactly, and what is undone is said."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from gradprobe import CheckpointError, UsageError, load_checkpoint
from gradprobe.problems.weights.names import TRANSPARENT, WRAPPERS, match


class Block(nn.Module):
    """A residual block whose own names look like wrappers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.model = nn.Linear(4, 4)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), Block(), Block(), nn.Linear(4, 2))


def saved(state: dict, path: Path) -> Path:
    save_file({k: v.contiguous().clone() for k, v in state.items()}, path / "x.safetensors")
    return path / "x.safetensors"


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(v, states[1][k]) for k, v in states[0].items())


PREFIXES = [
    "module.",
    "_orig_mod.",
    "_orig_mod.module.",
    "module._orig_mod.",
    "model.",
    "model.model.",
    "net._orig_mod.",
    "_fsdp_wrapped_module._orig_mod.",
    "learner.agent.policy.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_stripped_and_said(prefix: str, tmp_path: Path) -> None:
    net, other = small(), small()
    file = saved({prefix + k: v for k, v in net.state_dict().items()}, tmp_path)
    facts = load_checkpoint(other, file)
    assert same(net, other)
    assert facts["checkpoint_stripped"] == prefix
    assert any(repr(prefix) in note for note in facts["checkpoint_notes"])


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_wrapped_model_takes_a_bare_file(prefix: str, tmp_path: Path) -> None:
    net = small()
    wrapped = small_in = small()
    for part in reversed(prefix.rstrip(".").split(".")):
        outer = nn.Module()
        outer.add_module(part, wrapped)
        wrapped = outer
    facts = load_checkpoint(wrapped, saved(net.state_dict(), tmp_path))
    assert same(net, small_in)
    assert facts["checkpoint_added"] == prefix


def test_wrappers_inside_names(tmp_path: Path) -> None:
    """Blocks that were compiled or wrapped one by one."""
    net, other = small(), small()
    names = {k: k.replace("1.", "1._orig_mod.", 1) if k.startswith("1.") else k for k in net.state_dict()}
    facts = load_checkpoint(other, saved({names[k]: v for k, v in net.state_dict().items()}, tmp_path))
    assert same(net, other)
    assert facts["checkpoint_notes"] == ["Parts of wrappers were taken out of names in the file: _orig_mod."]


def test_a_compiled_model_takes_a_file_of_data_parallel(tmp_path: Path) -> None:
    net = small()
    other = nn.Module()
    other._orig_mod = small()  # as torch.compile names it
    load_checkpoint(other, saved({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path))
    assert same(net, other._orig_mod)


def names_of(depth: int) -> st.SearchStrategy[str]:
    part = st.sampled_from(["net", "model", "conv", "block", "0", "1", "weight", "bias"])
    return st.lists(part, min_size=1, max_size=depth).map(".".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    names=st.sets(names_of(4), min_size=1, max_size=12),
    wrappers=st.lists(st.sampled_from([*WRAPPERS, *TRANSPARENT, "learner"]), max_size=5),
)
def test_any_sequence_of_wrappers_is_undone_exactly(names: set[str], wrappers: list[str]) -> None:
    """Every tensor has a shape of its own, so that only the right name matches."""
    model = {name: [i] for i, name in enumerate(sorted(names))}
    prefix = "".join(f"{w}." for w in wrappers)
    found = match(model, {prefix + k: v for k, v in model.items()})
    assert found.pairs == {name: prefix + name for name in model}
    assert found.stripped == prefix
    assert found.added == ""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    names=st.sets(names_of(4), min_size=1, max_size=12),
    wrappers=st.lists(st.sampled_from([*WRAPPERS, *TRANSPARENT]), max_size=4),
)
def test_equal_shapes_do_not_mislead(names: set[str], wrappers: list[str]) -> None:
    model = dict.fromkeys(sorted(names), [3])
    prefix = "".join(f"{w}." for w in wrappers)
    assert match(model, {prefix + k: [3] for k in model}).pairs == {name: prefix + name for name in model}


def test_strip_none_and_by_hand(tmp_path: Path) -> None:
    net, other = small(), small()
    file = saved({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path)
    with pytest.raises(CheckpointError, match="names differ by the prefix 'module.' alone; leave strip"):
        load_checkpoint(other, file, strip="none")
    for strip in ("module", "module."):
        assert load_checkpoint(other, file, strip=strip)["checkpoint_stripped"] == "module."
        assert same(net, other)
    with pytest.raises(UsageError, match=r"begins with 'modle\.'; the first is 'module\."):
        load_checkpoint(other, file, strip="modle")


def test_the_counter_of_an_averaged_model_is_explained(tmp_path: Path) -> None:
    net, other = small(), small()
    averages = torch.optim.swa_utils.AveragedModel(net)
    torch.save(averages.state_dict(), tmp_path / "swa.pt")
    facts = load_checkpoint(other, tmp_path / "swa.pt")
    assert same(averages.module, other)
    assert facts["checkpoint_stripped"] == "module."
    assert any("counter of an averaged model" in note for note in facts["checkpoint_notes"])


def test_an_averaged_model_takes_its_own_counter(tmp_path: Path) -> None:
    net, other = (torch.optim.swa_utils.AveragedModel(small()) for _ in range(2))
    net.n_averaged.fill_(7)
    facts = load_checkpoint(other, saved(net.state_dict(), tmp_path))
    assert same(net, other)
    assert "checkpoint_notes" not in facts


def lightning(state: dict, more: dict) -> dict:
    return {
        "pytorch-lightning_version": "2.5",
        "epoch": 3,
        "state_dict": {f"model.{k}": v for k, v in state.items()} | more,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
        "callbacks": {"EMA": {"weights": torch.zeros(2)}},
        "hyper_parameters": {"lr": 0.1},
    }


def test_lightning(tmp_path: Path) -> None:
    net, other = small(), small()
    torch.save(lightning(net.state_dict(), {}), tmp_path / "epoch=3.ckpt")
    facts = load_checkpoint(other, tmp_path / "epoch=3.ckpt")
    assert same(net, other)
    assert facts["checkpoint_format"] == "torch zip, Lightning"
    assert (facts["checkpoint_key"], facts["checkpoint_stripped"]) == ("state_dict", "model.")


def test_a_part_of_a_lightning_module(tmp_path: Path) -> None:
    net, other = small(), small()
    torch.save(lightning(net.state_dict(), {"loss.weight": torch.ones(2)}), tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointError, match=r"more than the model: loss; .*--checkpoint-key state_dict\.model\.$"
    ):
        load_checkpoint(other, tmp_path / "a.ckpt")
    assert (
        load_checkpoint(other, tmp_path / "a.ckpt", key="state_dict.model")["checkpoint_key"]
        == "state_dict.model"
    )
    assert same(net, other)


def test_a_file_with_weights_and_their_average_under_prefixes(tmp_path: Path) -> None:
    net, average, other = small(), small(), small()
    state = {f"model.{k}": v for k, v in net.state_dict().items()}
    file = saved(state | {f"ema.{k}": v for k, v in average.state_dict().items()}, tmp_path)
    with pytest.raises(
        CheckpointError, match="the model twice, under 'model' and ema; .*--checkpoint-key model"
    ):
        load_checkpoint(other, file)
    load_checkpoint(other, file, key="ema")
    assert same(average, other)


STATE = {"w": torch.zeros(2, 2), "b": torch.ones(2)}
OTHER = {k: v + 1 for k, v in STATE.items()}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.rand(2, 2)), nn.Parameter(torch.rand(2))


@pytest.mark.parametrize(
    ("content", "key", "taken", "where"),
    [
        (STATE, None, STATE, None),
        ({"epoch": 1, "model_state_dict": STATE}, None, STATE, "model_state_dict"),
        ({"model": STATE, "ema": OTHER}, None, STATE, "model"),
        ({"model": STATE, "ema": OTHER}, "ema", OTHER, "ema"),
        ({"state_dict": STATE, "state_dict_ema": OTHER}, None, STATE, "state_dict"),
        ({"model": STATE, "ema": {"module": OTHER, "decay": 0.9}}, "ema.module", OTHER, "ema.module"),
        ({"net": STATE, "running": OTHER}, None, STATE, "net"),
        ({"my_weights": STATE}, None, STATE, "my_weights"),
        ({"checkpoint": {"state_dict": STATE}}, None, STATE, "checkpoint.state_dict"),
        ({"a.b": STATE, "c": OTHER}, "a.b", STATE, "a.b"),
        ({"ema": OTHER, "epoch": 1}, None, OTHER, "ema"),
    ],
)
def test_the_state_dict_is_found(
    content: dict, key: str | None, taken: dict, where: str | None, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pt")
    net = Two()
    facts = load_checkpoint(net, tmp_path / "a.pt", key=key)
    assert facts.get("checkpoint_key") == where
    assert all(torch.equal(v, taken[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        ({"model": STATE, "net": OTHER}, None, r"choose one .*: model \(2 tensors\), net \(2 tensors\)"),
        ({"ema": STATE, "model_ema": OTHER}, None, "several state dicts"),
        ({"student": STATE, "other": OTHER}, None, "several state dicts"),
        ({"model": STATE}, "modl", "Did you mean 'model'"),
        ({"model": STATE, "epoch": 3}, "epoch", "Known: model"),
    ],
)
def test_what_is_ambiguous_is_asked(content: dict, key: str | None, says: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=says):
        load_checkpoint(Two(), tmp_path / "a.pt", key=key)


def test_names_of_weight_norm_before_and_after_torch_2(tmp_path: Path) -> None:
    new = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 1))
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    old = {}
    for name, value in new.state_dict().items():
        head, _, rest = name.partition(".")
        old[f"model.{head}.{names.get(rest, rest)}"] = value
    other = copy.deepcopy(new)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    facts = load_checkpoint(other, saved(old, tmp_path))
    assert same(new, other)
    assert "2 names with another ending" in facts["checkpoint_notes"][1]
