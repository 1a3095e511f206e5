"""Public data by name through Hugging Face datasets: the hub's folder as downloaded; no network, no copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="needs the extra hf")

import datasets
from PIL import Image

from gradprobe import UsageError
from gradprobe.problems.hub import quiet
from gradprobe.problems.load import load_data

HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "tiny-imagenet": "zh-plus/tiny-imagenet",
    "ag-news": "fancyzhx/ag_news",
}
CLASSES = {
    "cifar10": 10,
    "cifar100": 100,
    "mnist": 10,
    "fashion-mnist": 10,
    "tiny-imagenet": 200,
    "ag-news": 4,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADPROBE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def rows(name: str) -> datasets.Dataset:
    """Two rows with the columns and types that the hub has."""
    labels = datasets.ClassLabel(names=[str(i) for i in range(CLASSES[name])])
    if name == "ag-news":
        features = {"text": datasets.Value("string"), "label": labels}
        return datasets.Dataset.from_dict(
            {"text": ["a b", "b"], "label": [3, 1]}, datasets.Features(features)
        )
    shape = {"mnist": (28, 28), "fashion-mnist": (28, 28), "tiny-imagenet": (64, 64, 3)}.get(
        name, (32, 32, 3)
    )
    picture = np.random.Generator(np.random.PCG64(2)).integers(0, 255, shape, dtype=np.uint8)
    pictures = [Image.fromarray(picture), Image.fromarray(picture[::-1].copy()).convert("L")]
    column = "img" if name.startswith("cifar") else "image"
    columns = {column: pictures} | (
        {"fine_label": [3, 1], "coarse_label": [0, 0]} if name == "cifar100" else {}
    )
    features = {column: datasets.Image()} | (
        {"fine_label": labels, "coarse_label": datasets.ClassLabel(num_classes=20)}
        if name == "cifar100"
        else {"label": labels}
    )
    columns |= {} if name == "cifar100" else {"label": [3, 1]}
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_folder_as_it_is_downloaded(name: str, folder: Path) -> None:
    place = folder / name / ("data" if name in ("tiny-imagenet", "ag-news") else "plain_text")
    place.mkdir(parents=True)
    with quiet():
        rows(name).to_parquet(str(place / "train-00000-of-00001.parquet"))
    data = load_data(name, "train", {})
    inputs, targets = data.batch(2)
    assert targets.tolist() == [3, 1]
    assert data.classes == CLASSES[name]
    if name == "ag-news":
        assert inputs.shape == (2, 64)
        return
    channels = 1 if "mnist" in name else 3
    assert inputs.shape[:2] == (2, channels)
    want = torch.from_numpy(np.array(rows(name)[0]["img" if name.startswith("cifar") else "image"]) / 255)
    assert torch.allclose(inputs[0], want.reshape(*want.shape[:2], -1).permute(2, 0, 1).float())


@pytest.mark.parametrize("name", HUB)
def test_without_network_and_copy_the_download_is_said(name: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_data(name, "train", {})
    message = str(caught.value)
    assert f"hf download {HUB[name]} --repo-type dataset --local-dir {folder / name}" in message
    assert "GRADPROBE_DATA" in message
    assert "\n" not in message
