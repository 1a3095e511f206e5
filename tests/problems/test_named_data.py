"""Public data by name from local copies in their authors' formats; where there is none, what to download."""

from __future__ import annotations

import gzip
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradprobe import UsageError, load_problem
from gradprobe.problems.data import Data
from gradprobe.problems.load import load_data
from tests.public_data import write_cifar, write_cora, write_idx, write_mnist


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADPROBE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "data"


def load(name: str, split: str = "train", **options: object) -> Data:
    return load_data(name, split, options)


def refused(*words: str, name: str, split: str = "train", size: int = 1, **options: object) -> None:
    with pytest.raises(UsageError) as caught:
        load(name, split, **options).batch(size)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("name", "place", "ending"),
    [
        ("mnist", "mnist", ""),
        ("mnist", "MNIST/raw", ".gz"),
        ("fashion-mnist", "fashion-mnist", ".gz"),
        ("fashion-mnist", "FashionMNIST/raw", ""),
    ],
)
def test_idx_files(name: str, place: str, ending: str, folder: Path) -> None:
    pictures, labels = write_mnist(folder / place, "train", 12, ending)
    write_mnist(folder / place, "t10k", 5, ending)
    data = load(name)
    inputs, targets = data.batch(4, 3)
    assert torch.equal(inputs, torch.from_numpy(pictures[3:7, None]).float() / 255)
    assert targets.tolist() == labels[3:7].tolist()
    assert (len(data), len(load(name, "test")), data.classes, data.input_shape) == (12, 5, 10, (1, 28, 28))


def test_normalised_pixels(folder: Path) -> None:
    pictures, _ = write_mnist(folder / "mnist", "train", 4)
    inputs = load("mnist", normalize=True).batch(4)[0]
    assert np.allclose(inputs.numpy()[:, 0], (pictures / 255 - 0.1307) / 0.3081, atol=1e-5)


def test_cifar10_goes_on_from_file_to_file(folder: Path) -> None:
    place = folder / "cifar-10-batches-bin"
    parts = [write_cifar(place / f"data_batch_{i}.bin", 3, 1, i) for i in range(1, 6)]
    write_cifar(place / "test_batch.bin", 2, 1)
    pictures, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    data = load("cifar10")
    for first, size in ((0, 15), (2, 5), (4, 1), (8, 7)):
        inputs, targets = data.batch(size, first)
        assert torch.equal(inputs, torch.from_numpy(pictures[first : first + size]).float() / 255)
        assert targets.tolist() == labels[first : first + size].tolist()
    assert (len(data), len(load("cifar10", "test")), data.classes) == (15, 2, 10)


def test_cifar100_has_fine_labels(folder: Path) -> None:
    pictures, labels = write_cifar(folder / "cifar100" / "cifar-100-binary" / "train.bin", 4, 2, 90)
    inputs, targets = load("cifar100").batch(4)
    assert torch.equal(inputs, torch.from_numpy(pictures).float() / 255)
    assert targets.tolist() == labels.tolist() == [90, 91, 92, 93]


def test_tiny_imagenet_as_it_is_unpacked(folder: Path) -> None:
    place = folder / "tiny-imagenet-200"
    for k, name in enumerate(("n02", "n01")):
        (place / "train" / name / "images").mkdir(parents=True)
        Image.new("RGB", (64, 64), (51 * k, 0, 255)).save(
            place / "train" / name / "images" / f"{name}_0.JPEG"
        )
    (place / "val" / "images").mkdir(parents=True)
    Image.new("L", (64, 64), 51).save(place / "val" / "images" / "val_0.JPEG")
    (place / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\n")
    (place / "wnids.txt").write_text("n02\nn01\n")
    inputs, targets = load("tiny-imagenet").batch(2)
    assert inputs.shape == (2, 3, 64, 64)
    assert inputs[:, 0].mean((1, 2)).tolist() == pytest.approx([0.2, 0], abs=0.01)
    assert targets.tolist() == [0, 1]
    inputs, targets = load("tiny-imagenet", "valid").batch(1)
    assert torch.allclose(inputs, torch.full((1, 3, 64, 64), 0.2), atol=0.01)
    assert targets.tolist() == [1]


def test_ag_news_csv(folder: Path) -> None:
    (folder / "ag_news_csv").mkdir(parents=True)
    lines = '"3","Fears, T\'s","Wall St. ""bears"" claw"\n"4","Talks","fears"\n'
    (folder / "ag_news_csv" / "train.csv").write_text(lines)
    data = load("ag-news", vocabulary=1000, length=6)
    assert data.read(0, 2)[0] == ['Fears, T\'s Wall St. "bears" claw', "Talks fears"]
    inputs, targets = data.batch(2)
    assert inputs.shape == (2, 6)
    assert inputs[0, 0] == inputs[1, 1] != 0
    assert inputs[1, 2:].tolist() == [0, 0, 0, 0]
    assert int(inputs.max()) < 1000
    assert targets.tolist() == [2, 3]
    assert data.offers["vocabulary"] == 1000


def test_cora_from_its_text_files(folder: Path) -> None:
    write_cora(folder / "cora")
    data = load("cora")
    (x, edges), targets = data.batch(32)
    assert x.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert edges.T.tolist() == [[0, 1], [0, 3], [1, 0], [3, 0]]
    assert targets.tolist() == [0, 2, 1, 0]
    assert data.weights.tolist() == [0.25] * 4
    assert data.offers == {"features": 3, "classes": 3}


def test_coras_split_has_planetoids_sizes_and_no_node_twice(folder: Path) -> None:
    (folder / "cora").mkdir(parents=True)
    rows = [f"p{i} 0 1 topic{i % 7}" for i in range(1800)]
    (folder / "cora" / "cora.content").write_text("\n".join(rows))
    (folder / "cora" / "cora.cites").write_text("p0 p1\n")
    chosen = {split: load("cora", split).weights > 0 for split in ("train", "val", "test")}
    assert {k: int(v.sum()) for k, v in chosen.items()} == {"train": 140, "val": 500, "test": 1000}
    assert int(sum(v.int() for v in chosen.values()).max()) == 1
    labels = load("cora").targets[chosen["train"]]
    assert labels.bincount().tolist() == [20] * 7


def test_cora_from_numpy_has_the_public_split(folder: Path) -> None:
    (folder / "cora").mkdir(parents=True)
    arrays = {"x": np.eye(3), "edge_index": np.array([[0, 1], [1, 0]]), "y": np.array([0, 1, 1])}
    masks = {f"{s}_mask": np.arange(3) == i for i, s in enumerate(("train", "val", "test"))}
    np.savez(folder / "cora" / "cora.npz", **arrays, **masks)
    assert load("cora", "test").weights.tolist() == [0, 0, 1]
    del arrays["y"]
    np.savez(folder / "cora" / "cora.npz", **arrays, **masks)
    refused("lacks y", "np.savez", name="cora")


def test_a_problem_on_a_local_copy(folder: Path) -> None:
    write_mnist(folder / "mnist", "train", 12)
    problem = load_problem(data="mnist", batch_size=4, first=2)
    assert problem.inputs.shape == (4, 1, 28, 28)
    assert problem.parameters["conv1.weight"].shape == (8, 1, 3, 3)


def test_pickles_are_never_read(folder: Path) -> None:
    for name, meta in (("cifar-10-batches-py", "batches.meta"), ("cifar-100-python", "meta")):
        (folder / name).mkdir(parents=True)
        (folder / name / meta).write_bytes(pickle.dumps({}))
    (folder / "Cora" / "raw").mkdir(parents=True)
    (folder / "Cora" / "raw" / "ind.cora.x").write_bytes(pickle.dumps({}))
    refused("pickled code", "cifar-10-binary.tar.gz", name="cifar10")
    refused("pickled code", "cifar-100-binary.tar.gz", name="cifar100")
    refused("pickles", "cora.tgz", "Planetoid", name="cora")


def test_without_a_copy_the_way_to_one_is_said(folder: Path) -> None:
    refused("GRADPROBE_DATA", "cora.tgz", name="cora")


def test_files_that_are_cut_off(folder: Path) -> None:
    write_cifar(folder / "cifar100" / "train.bin", 2, 1)
    refused("no whole number of CIFAR records", name="cifar100")
    write_mnist(folder / "mnist", "train", 3)
    images = folder / "mnist" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    refused("no whole idx file", name="mnist")
    write_mnist(folder / "mnist", "train", 3)
    write_idx(folder / "mnist" / "train-labels-idx1-ubyte", np.zeros(2, np.uint8))
    refused("3 pictures", "2 labels", name="mnist")
    write_mnist(folder / "fashion-mnist", "train", 3, ".gz")
    (folder / "fashion-mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    refused("cannot be unpacked", name="fashion-mnist")


def test_no_more_is_unpacked_than_the_header_says(folder: Path) -> None:
    write_mnist(folder / "mnist", "train", 3, ".gz")
    images = folder / "mnist" / "train-images-idx3-ubyte.gz"
    head = gzip.decompress(images.read_bytes())[:16]
    images.write_bytes(gzip.compress(head + bytes(2**26)))
    tracemalloc.start()
    refused("no whole idx file", name="mnist")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    images.write_bytes(gzip.compress(head[:4] + b"\xff" * 12 + bytes(9)))
    refused("no whole idx file", name="mnist")


def test_mistakes(folder: Path) -> None:
    write_mnist(folder / "mnist", "train", 3)
    refused("unknown split", "train, test", name="mnist", split="valid")
    refused("true or false", name="mnist", normalize="yes")
    refused("Did you mean 'normalize'", name="mnist", normalise=True)
    refused("does not fit into the 3", name="mnist", size=4)
    refused("Did you mean 'mnist'", name="minst")
    (folder / "ag-news").mkdir()
    (folder / "ag-news" / "train.csv").write_text("text,label\n")
    refused("line 1", "class (1 to 4), title, description", name="ag-news")
    write_cora(folder / "cora")
    refused("too few", name="cora", split="val")
    (folder / "cora" / "cora.content").write_text("p0 0 1 a\np1 0 b\n")
    refused("no lines of paper, words and topic", name="cora")


def test_a_graph_in_a_file_that_is_no_archive(folder: Path) -> None:
    (folder / "cora").mkdir(parents=True)
    file = folder / "cora" / "cora.npz"
    file.write_bytes(b"PK\x03\x04" + b"x" * 50)
    refused("cannot be read", "save it again", name="cora")
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    refused("cannot be read", "save it again", name="cora")
