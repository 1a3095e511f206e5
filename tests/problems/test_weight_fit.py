"""Weights fit in full or not at all; what is tolerated is said, and the error names one probable cause."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from gradprobe import CheckpointError, UsageError, load_checkpoint
from gradprobe.problems.weights.table import KINDS, Row
from tests.problems.test_weight_names import same, saved, small


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


class Tied(nn.Module):
    """A language model in small: one tensor for the embedding and the head."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


class Head(nn.Module):
    def __init__(
        self, classes: int = 10, width: int = 6, blocks: int = 2, bias: bool = True, inputs: int = 3
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 5)
        self.blocks = nn.Sequential(*(nn.Linear(width, width, bias=bias) for _ in range(blocks)))
        self.norm = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, classes)


class Rope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("mask", torch.ones(2), persistent=False)


def test_tied_weights_that_safetensors_drops(tmp_path: Path) -> None:
    net, other = Tied(), Tied()
    save_model(net, str(tmp_path / "a.safetensors"))
    facts = load_checkpoint(other, tmp_path / "a.safetensors")
    assert same(net, other)
    assert other.head.weight is other.embedding.weight
    assert "1 tied tensor in the file under another name" in facts["checkpoint_notes"][0]
    untied = Tied(tied=False)
    with pytest.raises(CheckpointError, match="1 is missing"):
        load_checkpoint(untied, tmp_path / "a.safetensors")


def test_tied_weights_that_differ_in_the_file(tmp_path: Path) -> None:
    """The last would win, and the other be lost without a word."""
    net = Tied()
    before = state_of(net)
    with pytest.raises(CheckpointError, match="one tensor in the model but differ in the file"):
        load_checkpoint(net, saved(Tied(tied=False).state_dict(), tmp_path))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_counters_that_old_files_lack(tmp_path: Path) -> None:
    net, other = Head(), Head()
    other.norm.num_batches_tracked.fill_(5)
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    facts = load_checkpoint(other, saved(state, tmp_path))
    assert facts["checkpoint_notes"] == [
        "1 counter num_batches_tracked not in the file, as in old ones: kept as in the model."
    ]
    assert other.norm.num_batches_tracked == 5
    assert torch.equal(net.norm.weight, other.norm.weight)


@pytest.mark.parametrize("mask", [torch.ones(2), torch.ones(2, dtype=torch.float16)])
def test_buffers_that_are_not_saved_are_left_out_if_their_values_are_the_same(
    mask: torch.Tensor, tmp_path: Path
) -> None:
    net, other = Rope(), Rope()
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    facts = load_checkpoint(other, saved(state | {"module.mask": mask}, tmp_path))
    assert same(net, other)
    assert "module.mask (a buffer that the model does not save" in facts["checkpoint_notes"][1]


@pytest.mark.parametrize("mask", [torch.zeros(2), torch.ones(3)])
def test_buffers_that_are_not_saved_but_differ_are_refused(mask: torch.Tensor, tmp_path: Path) -> None:
    net, other = Rope(), Rope()
    before = state_of(other)
    with pytest.raises(CheckpointError, match="'mask' is a buffer that the model makes by itself"):
        load_checkpoint(other, saved(net.state_dict() | {"mask": mask}, tmp_path))
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_names_that_the_class_ignores(tmp_path: Path) -> None:
    """As models of transformers declare it."""
    net = nn.Linear(2, 2)
    net._keys_to_ignore_on_load_unexpected = [r"rotary.*inv_freq"]
    facts = load_checkpoint(net, saved(state_of(net) | {"rotary_emb.inv_freq": torch.ones(3)}, tmp_path))
    assert "class says to ignore" in facts["checkpoint_notes"][0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (torch.float8_e4m3fn, torch.float32, "2 tensors converted from float8_e4m3fn to float32 (exactly)."),
        (torch.float16, torch.bfloat16, "2 tensors converted from float16 to bfloat16 (rounded)."),
        (torch.complex64, torch.complex128, "2 tensors converted from complex64 to complex128 (exactly)."),
        (torch.bfloat16, torch.float32, "2 tensors converted from bfloat16 to float32 (exactly)."),
        (torch.float32, torch.bfloat16, "2 tensors converted from float32 to bfloat16 (rounded)."),
        (torch.float64, torch.float32, "2 tensors converted from float64 to float32 (rounded)."),
    ],
)
def test_other_types_are_converted_and_said(
    old: torch.dtype, new: torch.dtype, says: str, tmp_path: Path
) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    for module, dtype in ((net, old), (other, new)):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
    facts = load_checkpoint(other, saved(net.state_dict(), tmp_path))
    assert facts["checkpoint_notes"] == [says]
    assert other.weight.dtype == new
    assert torch.equal(other.weight, net.weight.to(new))


def test_whole_numbers_are_converted_and_said(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def __init__(self, *types: torch.dtype) -> None:
            super().__init__()
            for i, dtype in enumerate(types):
                self.register_buffer(f"b{i}", torch.ones(2, dtype=dtype))

    net = Counts(torch.uint16, torch.int64, torch.bool)
    facts = load_checkpoint(Counts(torch.int32, torch.bool, torch.uint8), saved(net.state_dict(), tmp_path))
    assert facts["checkpoint_notes"] == [
        "1 tensor converted from uint16 to int32 (exactly).",
        "1 tensor converted from int64 to bool (exactly).",
        "1 tensor converted from bool to uint8 (exactly).",
    ]


@pytest.mark.parametrize(
    ("value", "new"),
    [
        (torch.tensor([300]), torch.uint8),
        (torch.tensor([2]), torch.bool),
        (torch.tensor([1e6]), torch.float16),
        (torch.tensor([1e300], dtype=torch.float64), torch.float32),
        (torch.tensor([1e300 + 0j], dtype=torch.complex128), torch.complex64),
    ],
)
def test_numbers_too_large_for_the_model_are_refused(
    value: torch.Tensor, new: torch.dtype, tmp_path: Path
) -> None:
    """Copying would wrap them around, or make them infinite."""
    net = nn.Module()
    net.register_buffer("a", torch.ones(1, dtype=new))
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match=f"numbers of {value.dtype} that are too large for the model's {new}"
    ):
        load_checkpoint(net, tmp_path / "a.pt")
    assert torch.equal(net.a, torch.ones(1, dtype=new))
    torch.save(
        {"a": torch.full_like(value, float("inf")) if new.is_floating_point else value * 0}, tmp_path / "b.pt"
    )
    load_checkpoint(net, tmp_path / "b.pt")


def renamed(**names: str) -> Callable[[dict], dict]:
    def change(state: dict) -> dict:
        for old, new in names.items():
            state = {k.replace(old, new): v for k, v in state.items()}
        return state

    return change


def transposed(state: dict) -> dict:
    return {k: v.permute(2, 3, 1, 0) if v.ndim == 4 else v.T if v.ndim == 2 else v for k, v in state.items()}


CAUSES = [
    ("head", lambda: state_of(Head(classes=7)), "7 classes in the file and 10 in the model.*num_classes=7"),
    ("deeper file", lambda: state_of(Head(blocks=3)), r"the file is a deeper network, with blocks\.2;"),
    ("deeper model", lambda: state_of(Head(blocks=1)), r"the model is a deeper network, with blocks\.1;"),
    ("width", lambda: state_of(Head(width=8)), "another width or other inputs"),
    ("channels", lambda: state_of(Head(inputs=1)), "'stem.weight' takes 1 channels in the file and 3"),
    ("no biases", lambda: state_of(Head(bias=False)), "the model has biases that the file lacks"),
    ("no head", lambda: {k: v for k, v in state_of(Head()).items() if "fc" not in k}, "the file has no 'fc'"),
    ("more", lambda: state_of(Head()) | {"aux.weight": torch.ones(2)}, "the model has no 'aux'"),
    ("transposed", lambda: transposed(state_of(Head(width=6, classes=10))), "weights are transposed"),
    ("kernels", lambda: renamed(weight="kernel")(state_of(Head())), "names of TensorFlow or Flax"),
    ("adapters", lambda: {"fc.lora_A.weight": torch.ones(2, 6)}, r"adapters \(LoRA\) alone"),
    ("quantised", lambda: {"fc.qweight": torch.ones(2), "fc.qzeros": torch.ones(2)}, "the file is quantised"),
    ("whole numbers", lambda: state_of(Head()) | {"fc.weight": torch.ones(10, 6).to(torch.int8)}, "another kind"),
    ("spectral norm", lambda: renamed(**{"fc.weight": "fc.weight_orig"})(state_of(Head())), "parametrization"),
    ("other code", lambda: {f"p{i}": v for i, v in enumerate(state_of(Head()).values())}, "same shapes under other"),
    ("other network", lambda: {"a": torch.ones(2), "b": torch.ones(3)}, "no name is in both"),
    ("fsdp", lambda: {"_flat_param": torch.ones(9)}, "FULL_STATE_DICT"),
    ("statistics", lambda: {k: v for k, v in state_of(Head()).items() if "norm" not in k or "s.w" in k or "bias" in k
                            or k == "norm.weight"}, "track_running_stats"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "says"), [c[1:] for c in CAUSES], ids=[c[0] for c in CAUSES])
def test_one_probable_cause_and_nothing_is_changed(state: Callable, says: str, tmp_path: Path) -> None:
    net = Head()
    before = state_of(net)
    with pytest.raises(CheckpointError, match=f"probable cause: .*{says}") as caught:
        load_checkpoint(net, saved(state(), tmp_path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.count("probable cause") == 1
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_sentence_and_the_table(tmp_path: Path) -> None:
    net = Head()
    state = renamed(norm="nrm")(state_of(Head(classes=7)))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(net, saved(state, tmp_path))
    rows = caught.value.table
    counts = {kind: sum(r.kind == kind for r in rows) for kind in KINDS}
    assert counts == {"shape": 2, "type": 0, "missing": 4, "unexpected": 5, "matched": 6}
    assert (
        "6 of 13 tensors match, 2 have another shape ('fc.weight' is [7, 6] in the file and [10, 6]"
        in str(caught.value)
    )
    assert "4 are missing ('norm.weight'; the file has 'nrm.weight')" in str(caught.value)
    assert Row("shape", "fc.bias", "[10]", "[7]", "fc.bias") in rows
    assert Row("missing", "norm.running_var", "[6]", "", "nrm.running_var") in rows
    assert Row("unexpected", "nrm.bias", "", "[6]", "norm.bias") in rows
    assert pickle.loads(pickle.dumps(caught.value)).table == rows


def test_the_command_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gradprobe.cli import main

    file = saved({f"a.{i}": torch.ones(3) for i in range(14)}, tmp_path)
    words = ["probe", "--checkpoint", str(file), "--estimators", "lr", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["gradprobe", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    lines = error.splitlines()
    assert lines[0].startswith(
        f"gradprobe: {file} does not fit the model: 0 of 10 tensors match, 10 are missing"
    )
    assert sum(line.strip().startswith("missing") for line in lines) == 10
    assert sum(line.strip().startswith("unexpected") for line in lines) == 11
    assert "... and 4 more" in error
    assert "[10, 32]" in error
    assert not (tmp_path / "run").exists()


class Stubborn(nn.Module):
    """Refuses weights of its own accord, after others have been copied."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)
        self.last.register_load_state_dict_post_hook(self._refuse)

    def _refuse(self, module: nn.Module, keys: object) -> None:
        raise ValueError("these are\nnot mine")


def test_a_model_whose_own_code_refuses_is_as_before(tmp_path: Path) -> None:
    net, state = Stubborn(), state_of(Stubborn())
    before = state_of(net)
    with pytest.raises(CheckpointError, match="own code refuses it: these are not mine"):
        load_checkpoint(net, saved(state, tmp_path))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Extra(nn.Linear):
    def get_extra_state(self) -> dict:
        return {"scale": 3}

    def set_extra_state(self, state: dict) -> None:
        self.scale = state["scale"]


def test_extra_states_are_handed_on(tmp_path: Path) -> None:
    net, other = nn.Sequential(Extra(2, 2)), nn.Sequential(Extra(2, 2))
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path / "a.pt")
    load_checkpoint(other, tmp_path / "a.pt")
    assert other[0].scale == 3
    assert torch.equal(net[0].weight, other[0].weight)


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (lambda: nn.LazyLinear(3), "2 lazy tensors without a shape .*run it once on a batch"),
        (lambda: nn.Linear(2, 2, device="meta"), "2 tensors on the meta device"),
        (lambda: nn.ReLU(), "the model has no weights"),
        (lambda: dict, "into a torch.nn.Module, not into a type"),
    ],
)
def test_models_that_take_no_weights(net: Callable, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        load_checkpoint(net(), saved({"weight": torch.ones(2, 2)}, tmp_path))


def shards(net: nn.Module, folder: Path, kind: str) -> list[Path]:
    folder.mkdir()
    write = save_file if kind == "safetensors" else torch.save
    stem = "model" if kind == "safetensors" else "pytorch_model"
    items = list(net.state_dict().items())
    files, where = [], {}
    for i, part in enumerate((items[:3], items[3:]), 1):
        files.append(folder / f"{stem}-0000{i}-of-00002.{kind}")
        write(dict(part), files[-1])
        where |= {k: files[-1].name for k, _ in part}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return files


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("given", ["directory", "index"])
def test_shards_of_hugging_face(kind: str, given: str, tmp_path: Path) -> None:
    net, other = small(), small()
    files = shards(net, tmp_path / "model", kind)
    path = tmp_path / "model" if given == "directory" else next((tmp_path / "model").glob("*.json"))
    facts = load_checkpoint(other, path)
    assert same(net, other)
    name = "safetensors" if kind == "safetensors" else "torch zip"
    assert facts["checkpoint_format"] == ("directory: " if given == "directory" else "") + f"{name}, 2 shards"
    assert facts["checkpoint"] == path.name
    lines = "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)
    assert facts["checkpoint_sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_one_file_in_a_directory(tmp_path: Path) -> None:
    """Hugging Face's names come first; optimizer states of accelerate are no candidates."""
    net, other = small(), small()
    torch.save(net.state_dict(), tmp_path / "anything.ckpt")
    for beside in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "training_args.bin", "scaler.pt"):
        (tmp_path / beside).write_bytes(b"x")
    assert load_checkpoint(other, tmp_path)["checkpoint_format"] == "directory: torch zip"
    torch.save({}, tmp_path / "pytorch_model.bin")
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    facts = load_checkpoint(other, tmp_path)
    assert facts["checkpoint_format"] == "directory: safetensors"
    assert "also holds pytorch_model.bin, which was not used" in facts["checkpoint_notes"][0]
    assert (
        facts["checkpoint_sha256"]
        == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    )


def test_shards_and_index_that_disagree(tmp_path: Path) -> None:
    files = shards(small(), tmp_path / "model", "safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    first = next(iter(where))
    index.write_text(json.dumps({"weight_map": {k: v for k, v in where.items() if k != first}}))
    with pytest.raises(UsageError, match=f"index does not name: {first};"):
        load_checkpoint(small(), tmp_path / "model")
    index.write_text(json.dumps({"weight_map": where | {first: files[1].name}}))
    with pytest.raises(UsageError, match=f"lacks '{first}', which the index says"):
        load_checkpoint(small(), tmp_path / "model")
    index.write_text("{}")
    with pytest.raises(UsageError, match="no index of shards"):
        load_checkpoint(small(), tmp_path / "model")


def test_no_tensor_is_read_before_all_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradprobe.problems.weights.lazy import LazyTensor

    read = []
    monkeypatch.setattr(LazyTensor, "read", lambda self: read.append(self.name))
    with pytest.raises(CheckpointError):
        load_checkpoint(Head(), saved(state_of(Head(classes=3)), tmp_path))
    assert not read
