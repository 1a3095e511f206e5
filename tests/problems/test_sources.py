"""Models and data of the user's own Python, saved batches, timm, torchvision: what is accepted, what is said."""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradprobe import UsageError, load_problem
from gradprobe.probes.parcel import pack, unpack
from gradprobe.problems import SOURCES
from gradprobe.problems.data import Data
from gradprobe.problems.lazy import LazyData, lazy
from gradprobe.problems.load import load_data, load_model
from gradprobe.problems.models._images import sized
from gradprobe.problems.sources.python import as_data

CODE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from gradprobe.problems.data import Data
from helper_beside import WIDTH

class Net(nn.Module):
    def __init__(self, classes=3, width=WIDTH):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, classes)
    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))
    @classmethod
    def wide(cls):
        return cls(width=20)

def make(classes, width=5):
    return Net(classes, width)
def broken():
    raise RuntimeError("two\\nlines")
def text():
    return "no module"
def pair_of_models():
    return Net(), Net()

ready = Net()
number = 3
x, y = torch.arange(40.0).view(10, 4), torch.arange(10) % 3
rows = [(x[i], int(y[i])) for i in range(10)]
class Rows(torch.utils.data.Dataset):
    classes = ["a", "b", "c"]
    def __len__(self): return 10
    def __getitem__(self, i):
        assert i < 6, "row of later"
        return rows[i]
class Stream(IterableDataset):
    def __iter__(self): return iter(rows)
def as_data(split): return Data(x if split == "train" else x[:4], y if split == "train" else y[:4], 3)
def as_pair(scale=1.0): return (x * scale).numpy(), y.numpy()
def as_rows(): return Rows()
def as_list(): return rows
def as_loader(): return DataLoader(TensorDataset(x, y), batch_size=3)
def as_shuffled(): return DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True)
def as_stream(): return Stream()
def needs_more(root): return x, y
def as_text(): return "no data"
def as_singles(): return [1, 2, 3]
def as_ragged(): return [(torch.zeros(i + 1), 0) for i in range(5)]
def fails(): raise KeyError("gone")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a module and a file of the user's, and nothing left of it afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    (tmp_path / "helper_beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "own_module.py").write_text(CODE)
    (tmp_path / "a dir").mkdir()
    (tmp_path / "a dir" / "own.file.v2.py").write_text(CODE)
    (tmp_path / "a dir" / "helper_beside.py").write_text("WIDTH = 6\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("own_module", "helper_beside") or str(
            getattr(sys.modules[name], "__file__", "")
        ).startswith(str(tmp_path)):
            del sys.modules[name]


def message_of(**options: object) -> str:
    with pytest.raises(UsageError) as caught:
        load_problem(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WAYS = [
    "own_module:{}",
    "a dir/own.file.v2.py:{}",
    "./a dir/own.file.v2.py:{}",
    "{place}/a dir/own.file.v2.py:{}",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "width"), [("Net", 6), ("make", 5), ("ready", 6), ("Net.wide", 20), ("make()", 5)]
)
def test_a_factory_a_class_or_a_module(way: str, name: str, width: int, place: Path) -> None:
    model = way.format(name, place=place)
    problem = load_problem(model, data=way.format("as_data", place=place), batch_size=6)
    assert problem.parameters["first.weight"].shape == (width, 4)
    assert problem.inputs.shape == (6, 4)


def test_options_reach_the_factory_and_weights_are_those_of_seed_0(place: Path) -> None:
    given = {"data": "own_module:as_data", "batch_size": 4, "model_args": {"width": 7}}
    state = torch.get_rng_state()
    problem = load_problem("own_module:make", **given)
    assert torch.equal(torch.get_rng_state(), state)
    again = load_problem("own_module:make", **given)  # the module is not imported again, which draws
    assert torch.equal(again.clean_losses(), problem.clean_losses())
    torch.manual_seed(0)
    assert torch.equal(problem.parameters["first.weight"], nn.Linear(4, 7).weight)


def test_a_module_that_exists_is_not_changed(place: Path) -> None:
    problem = load_problem("own_module:ready", data="own_module:as_data", batch_size=4)
    own = sys.modules["own_module"].ready
    assert problem.module is not own
    assert torch.equal(problem.module.first.weight, own.first.weight)


def test_a_model_of_a_file_can_be_sent_to_a_process_that_does_not_have_it(place: Path) -> None:
    problem = load_problem("a dir/own.file.v2.py:Net", data="own_module:as_data", batch_size=4)
    parcel, name = pack(problem, {}, []), type(problem.module).__module__
    del sys.modules[name]
    sent, _ = unpack(parcel.data)
    assert torch.equal(sent.clean_losses(), problem.clean_losses())


def test_folders_are_searched_last_once_the_module_is_there(place: Path) -> None:
    load_problem("a dir/own.file.v2.py:Net", data="own_module:as_data", batch_size=4)
    assert sys.path[-2:] == [str(place), str(place / "a dir")]
    (place / "json.py").write_text("raise RuntimeError('the wrong one')\n")
    assert importlib.machinery.PathFinder.find_spec("json").origin != str(place / "json.py")


FORMS = ["as_data", "as_pair", "as_rows", "as_list", "as_loader", "as_stream", "rows"]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_data_gives_the_same_batch(name: str, place: Path) -> None:
    data = load_data(f"own_module:{name}", "train", {})
    inputs, targets = data.batch(4, 2)
    assert torch.equal(inputs, torch.arange(40.0).view(10, 4)[2:6])
    assert targets.tolist() == [2, 0, 1, 2]
    if name in ("as_data", "as_rows"):
        assert data.classes == 3


def test_a_loader_that_shuffles_gives_the_same_batch_each_time(place: Path) -> None:
    first, second = (load_data("own_module:as_shuffled", "train", {}).batch(5, 1) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], torch.arange(40.0).view(10, 4)[1:6])


def test_a_function_is_given_the_split_and_the_options_that_it_names(place: Path) -> None:
    assert len(load_data("own_module:as_data", "test", {})) == 4
    assert load_data("own_module:as_pair", "train", {"scale": 2.0}).batch(1, 1)[0].tolist() == [
        [8, 10, 12, 14]
    ]


MODELS = [
    ("no_such_module:Net", ["no module 'no_such_module'", "current directory"]),
    ("own_module.deeper:Net", ["no module 'own_module.deeper'"]),
    ("own_module:Nett", ["Did you mean 'Net'", "make"]),
    ("own_module:Net.wid", ["Did you mean 'wide'"]),
    ("own_module:", ["lacks a name", "own_module:name"]),
    (":Net", ["lacks a name"]),
    ("own_module", ["unknown model", "package.module:factory"]),
    ("own module:Net", ["no name of a module"]),
    ("own_module:number", ["of type int"]),
    ("own_module:text", ["returned a str", "torch.nn.Module"]),
    ("own_module:pair_of_models", ["returned a tuple"]),
    ("own_module:broken", ["RuntimeError: two lines"]),
    ("a dir/own.file.v2.py", ["lacks a name", "own.file.v2.py:Net", "defines Net, make"]),
    ("a dir/own.file:Net", ["no file", "own.file.v2.py"]),
    ("nowhere/net.py:Net", ["no file 'nowhere/net.py'"]),
    ("C:\\models\\net.py:Net", ["no file 'C:"]),
    ("C:\\models\\net.py", ["lacks a name"]),
    ("notes.ipynb:Net", ["no Python file"]),
    ("wrong.py:Net", ["cannot be read as Python (line 2)"]),
    ("binary.py:Net", ["cannot be read as Python"]),
    ("missing.py:Net", ["needs 'library_that_is_absent', which is not installed"]),
    ("needs_missing:Net", ["needs 'library_that_is_absent', which is not installed"]),
    ("raises.py:Net", ["was found but raised ZeroDivisionError: division by zero"]),
    ("leaves.py:Net", ["ends the program", "__main__"]),
    ("hf:", ["lacks a name after the colon"]),
    ("tim:resnet18", ["no module 'tim'"]),
]


@pytest.mark.parametrize(("model", "words"), MODELS)
def test_mistakes_in_the_name_of_a_model(model: str, words: list[str], place: Path) -> None:
    (place / "notes.ipynb").write_text("{}")
    (place / "wrong.py").write_text("x = 1\nclass Net(\n")
    (place / "binary.py").write_bytes(b"\x00\x01\xff\xfe")
    for name in ("missing.py", "needs_missing.py"):
        (place / name).write_text("import library_that_is_absent\n")
    (place / "raises.py").write_text("1 / 0\n")
    (place / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    message = message_of(model=model)
    assert all(word in message for word in words), message
    assert not [m for m in sys.modules if m.startswith("gradprobe.problems.files.") and "raises" in m]


def test_a_file_is_not_run_to_say_what_it_defines(place: Path) -> None:
    (place / "acts.py").write_text("open('ran', 'w')\ndef make(): pass\n")
    assert "defines make" in message_of(model="acts.py")
    assert not (place / "ran").exists()


def test_mistakes_in_options_of_a_model(place: Path) -> None:
    given = {"data": "own_module:as_pair", "batch_size": 4}
    assert "needs classes" in message_of(model="own_module:make", **given)
    assert "Did you mean 'width'" in message_of(model="own_module:make", model_args={"widht": 3}, **given)
    assert "takes no options (width)" in message_of(
        model="own_module:ready", model_args={"width": 3}, **given
    )
    assert "no checkpoint is given" in message_of(checkpoint_args={"trust_pickle": True})
    assert "unknown option of the checkpoint" in message_of(
        checkpoint="trained", checkpoint_args={"kee": "model"}
    )


DATA = [
    ("own_module:as_dat", ["Did you mean 'as_data'"]),
    ("own_module:as_text", ["returned a str", "a pair (inputs, targets)"]),
    ("own_module:number", ["of type int"]),
    ("own_module:as_singles", ["a int as a sample", "pair (inputs, targets)"]),
    ("own_module:fails", ["cannot be made: KeyError: 'gone'"]),
    ("own_module:needs_more", ["need root", "root=..."]),
    ("nowhere:data", ["no module 'nowhere'"]),
    ("own_module.py", ["lacks a name", "own_module.py:"]),
    ("batch.pt", ["no saved batch", "save_file"]),
    ("nowhere.safetensors", ["no file 'nowhere.safetensors'"]),
    ("rows.csv", ["write hf:rows.csv"]),
    ("a dir", ["write hf:a dir"]),
    ("digts", ["Did you mean 'digits'", "saved batch"]),
    ("hf:", ["lack a name"]),
]


@pytest.mark.parametrize(("data", "words"), DATA)
def test_mistakes_in_the_name_of_data(data: str, words: list[str], place: Path) -> None:
    torch.save({}, place / "batch.pt")
    message = message_of(data=data, batch_size=4)
    assert all(word in message for word in words), message


def test_mistakes_in_options_of_data(place: Path) -> None:
    assert "Did you mean 'scale'" in message_of(data="own_module:as_pair", data_args={"scal": 2})
    assert "take no options (scale)" in message_of(data="own_module:rows", data_args={"scale": 2})
    with pytest.raises(UsageError, match="fail at a sample: AssertionError: row of later"):
        load_data("own_module:as_rows", "train", {}).batch(8)
    with pytest.raises(UsageError, match="cannot be put together"):
        load_data("own_module:as_ragged", "train", {}).batch(2)
    for name in ("as_stream", "as_loader", "as_list"):
        with pytest.raises(UsageError, match="does not fit into the 10 samples"):
            load_data(f"own_module:{name}", "train", {}).batch(50)
    assert "unknown option of data 'digits'" in message_of(data="digits", data_args={"normalize": True})


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_saved_batch(ending: str, tmp_path: Path) -> None:
    arrays = {"inputs": torch.rand(6, 1, 8, 8), "targets": torch.arange(6)}
    named = {
        "input_ids": torch.arange(12).view(6, 2),
        "token_type_ids": torch.zeros(6, 2),
        "targets": torch.arange(6),
    }
    for name, given in (("one", arrays), ("many", named)):
        if ending == "npz":
            np.savez(tmp_path / f"{name}.npz", **{k: v.numpy() for k, v in given.items()})
        else:
            save_file(given, tmp_path / f"{name}.safetensors")
    file = str(tmp_path / f"one.{ending}")
    problem = load_problem(data=file, batch_size=4, first=2, data_args={"classes": 10})
    assert torch.equal(problem.inputs, arrays["inputs"][2:])
    assert problem.target.tolist() == [2, 3, 4, 5]
    inputs, _ = load_data(str(tmp_path / f"many.{ending}"), "train", {}).batch(2)
    assert inputs.keys() == {"input_ids", "token_type_ids"}
    assert inputs["input_ids"].tolist() == [[0, 1], [2, 3]]


def test_mistakes_in_a_saved_batch(tmp_path: Path) -> None:
    def said(name: str, **arrays: np.ndarray) -> str:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        return message_of(data=str(tmp_path / f"{name}.npz"), batch_size=2)

    x, y = np.zeros((4, 3)), np.zeros(4)
    assert "holds x, y; it must hold targets" in said("names", x=x, y=y)
    assert "inputs and also mask" in said("both", inputs=x, mask=x, targets=y)
    assert "4 targets but 3 rows of inputs" in said("rows", inputs=x[:3], targets=y)
    assert "has no rows" in said("empty", inputs=x[:0], targets=y[:0])
    assert "arrays of Python objects" in said("objects", inputs=np.array([{}] * 4), targets=y)
    (tmp_path / "bad.safetensors").write_bytes(b"no batch")
    assert "cannot be read as a saved batch" in message_of(data=str(tmp_path / "bad.safetensors"))


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch, make: object) -> list[tuple[str, dict]]:
    """A library with one model, resnet18, that notes how it is called."""
    calls: list[tuple[str, dict]] = []

    def called(model: str, **options: object) -> nn.Module:
        calls.append((model, options))
        return make(**options)

    library = types.ModuleType(name)
    models = types.SimpleNamespace(list_models=lambda: ["resnet18", "vit_b_16"], get_model=called)
    library.models, library.list_models, library.create_model = models, models.list_models, called
    monkeypatch.setitem(sys.modules, name, library)
    return calls


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(num_classes: int, in_chans: int, **rest: object) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_chans, 2, 8), nn.Flatten(), nn.Linear(2, num_classes))

    calls = stand_in("timm", monkeypatch, make)
    problem = load_problem("timm:resnet18", model_args={"drop_rate": 0.0})
    assert calls == [("resnet18", {"num_classes": 10, "in_chans": 1, "drop_rate": 0.0})]
    assert problem.facts["weights"] == "random (seed 0)"
    named = load_problem("timm:resnet18.a1_in1k", model_args={"pretrained": True})
    assert named.facts["weights"] == "timm's pretrained ones of resnet18.a1_in1k"
    assert "Did you mean 'resnet18'" in message_of(model="timm:resnet81")
    assert "timm cannot make 'resnet18': TypeError" in message_of(
        model="timm:resnet18", model_args={"num_classes": "x"}
    )


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(num_classes: int = 1000, weights: str | None = None) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten(), nn.Linear(2, num_classes))

    calls = stand_in("torchvision", monkeypatch, make)
    problem = load_problem("torchvision:resnet18", batch_size=4)
    assert calls == [("resnet18", {"num_classes": 10})]
    assert problem.inputs.shape == (4, 3, 8, 8)
    assert torch.equal(problem.inputs[:, 0], problem.inputs[:, 2])
    problem = load_problem("torchvision:resnet18", batch_size=4, model_args={"weights": "DEFAULT"})
    assert problem.facts["weights"] == "torchvision's DEFAULT of resnet18"
    assert "Did you mean 'resnet18'" in message_of(model="torchvision:resnet-18")


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_an_absent_library_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert f'pip install "gradprobe[{name}]"' in message_of(model=f"{name}:resnet18")


def test_without_the_libraries_of_hugging_face_the_way_to_them_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library in ("transformers", "datasets"):
        monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("GRADPROBE_DATA", "nowhere")
    command = 'pip install "gradprobe[hf]"'
    assert command in message_of(model="hf:bert-base-uncased")
    assert command in message_of(data="hf:stanfordnlp/imdb")
    said = message_of(data="cifar10")
    assert command in said
    assert "cifar-10-binary.tar.gz" in said


def test_things_instead_of_names() -> None:
    assert "a Linear; for a module" in message_of(model=nn.Linear(2, 2))
    assert "use Problem(module" in message_of(data=(torch.zeros(2), torch.zeros(2)))


def test_the_source_has_everything_and_finds_it_from_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"inputs": torch.rand(6, 4), "targets": torch.arange(6) % 3}, place / "batch.safetensors")
    problem = load_problem("a dir/own.file.v2.py:Net", data="batch.safetensors", batch_size=4, mode="as-is")
    save_file({k: v + 1 for k, v in problem.module.state_dict().items()}, place / "weights.safetensors")
    given = {"checkpoint": "weights.safetensors", "model_args": {"width": 6}, "data_args": {"classes": 3}}
    problem = load_problem(
        "a dir/own.file.v2.py:Net", data="batch.safetensors", batch_size=4, loss="nll", **given
    )
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    source = problem.facts["source"]
    again = load_problem(**source)
    assert again.facts["source"] == source
    assert torch.equal(again.clean_losses(), problem.clean_losses())
    assert source["loss"] == "nll"
    assert source["data_args"] == {"classes": 3}


def grid(**options: object) -> DataLoader:
    return DataLoader(TensorDataset(torch.arange(20.0)[:, None], torch.arange(20)), batch_size=4, **options)


def time_major(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*samples, strict=True)
    return torch.stack(x, 1), torch.stack(y)


def test_a_batch_whose_first_axis_is_not_the_samples_is_refused() -> None:
    samples = [(torch.zeros(5, 3), torch.tensor(i)) for i in range(8)]
    loader = DataLoader(samples, batch_size=4, collate_fn=time_major)
    for data in (as_data("x", loader), lazy(Data(torch.zeros(5, 4, 3), torch.arange(4)))):
        with pytest.raises(UsageError, match=r"input of shape \[5, 4, 3\].*first axis\.$"):
            data.batch(4)


def test_batches_of_several_lengths_are_refused() -> None:
    class Ragged(DataLoader):
        def __iter__(self) -> Iterator:
            return iter([(torch.zeros(2, n), torch.zeros(2)) for n in (3, 5)])

    with pytest.raises(UsageError, match=r"\[\[3\], \[\]\] and \[\[5\], \[\]\]"):
        as_data("x", Ragged([0] * 4)).batch(4)


def test_a_loader_with_a_generator_of_its_own_gives_the_same_batch_each_time() -> None:
    generator = torch.Generator().manual_seed(7)
    state = generator.get_state()
    data = as_data("x", grid(shuffle=True, generator=generator))
    assert torch.equal(data.batch(8)[1], data.batch(8)[1])
    assert torch.equal(generator.get_state(), state)
    seeded_alike = torch.Generator().manual_seed(0)
    assert torch.equal(
        data.batch(8)[1], torch.cat([y for _, y in grid(shuffle=True, generator=seeded_alike)])[:8]
    )


def test_inputs_that_are_no_picture_are_one_sentence() -> None:
    pair = (torch.zeros(4, 3, 8, 8), torch.zeros(4, 1))
    with pytest.raises(UsageError, match=r"the inputs are .*choose data of pictures\.$"):
        sized(Data(pair, torch.arange(4)), 3, None).batch(2)


MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)


def colours(unit: bool) -> LazyData:
    return LazyData(
        lambda first, size: (torch.full((size, 3, 8, 8), 0.6), torch.zeros(size).long()),
        4,
        classes=2,
        unit=unit,
    )


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_pretrained_weights_get_the_pictures_that_they_expect(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(**options: object) -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        net.pretrained_cfg = {"mean": MEAN, "std": STD, "url": "there"}
        return net

    class Weights(enum.Enum):
        ONE = types.SimpleNamespace(mean=list(MEAN), std=list(STD))
        DEFAULT = ONE

        def transforms(self) -> object:
            return self.value

    stand_in(library, monkeypatch, make)
    sys.modules[library].models.get_model_weights = lambda name: Weights
    wish = {"pretrained": True} if library == "timm" else {"weights": "Weights.ONE"}
    for unit in (True, False):
        made = load_model(f"{library}:resnet18", colours(unit), wish, "x")
        pictures = made.adapt(colours(unit)).batch(2)[0]
        want = [(0.6 - m) / s for m, s in zip(MEAN, STD, strict=True)] if unit else [0.6] * 3
        assert torch.allclose(pictures[1, :, 0, 0], torch.tensor(want))
        assert "mean 0.1, 0.2, 0.3 and std 0.5, 0.25, 2: " + ("done" if unit else "not done") in made.notes[0]
    assert not load_model(f"{library}:resnet18", colours(True), {}, "x").notes


def test_a_source_that_is_added_is_offered_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
    names = SOURCES.names()
    SOURCES.register("wav", summary="sounds", written="FILE.wav", files=(".wav",))(lambda name, *_: name)
    assert SOURCES.names() == [*names, "wav"]
    assert load_data("a.wav", "train", {}) == "a.wav"
    assert "package.module:function, FILE.py:function" in SOURCES.written()
    assert "or FILE.wav." in message_of(data="nothing")
