"""Data through Hugging Face datasets: formats, columns, splits; only the rows of a batch are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="needs the extra hf")

import datasets
import pandas
from PIL import Image

from gradprobe import UsageError, load_problem
from gradprobe.problems.hub import quiet
from gradprobe.problems.lazy import LazyData
from gradprobe.problems.load import load_data


def table(size: int = 6) -> datasets.Dataset:
    rng = np.random.Generator(np.random.PCG64(5))
    pictures = [Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)) for _ in range(size)]
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes", "perhaps"])}
    columns = {"img": pictures, "label": [i % 3 for i in range(size)]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def pixels(rows: datasets.Dataset, positions: range) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(np.array(rows[i]["img"], dtype=np.float32))[None] / 255 for i in positions]
    )


def load(name: str | Path, split: str = "train", **options) -> LazyData:
    found = load_data(f"hf:{name}", split, options)
    assert isinstance(found, LazyData)
    return found


def refused(
    *words: str, name: str | Path, split: str = "train", size: int = 1, first: int = 0, **options
) -> None:
    with pytest.raises(UsageError) as caught:
        load(name, split, **options).batch(size, first)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("kind", ["parquet", "folder", "saved", "saved splits"])
def test_pictures_of_every_format_are_the_same(kind: str, tmp_path: Path) -> None:
    rows, place = table(), tmp_path / "x"
    with quiet():
        if kind == "parquet":
            place = tmp_path / "rows.parquet"
            rows.to_parquet(str(place))
        elif kind == "folder":
            (place / "data").mkdir(parents=True)
            rows.to_parquet(str(place / "data" / "train-00000-of-00001.parquet"))
            table(3).to_parquet(str(place / "data" / "test-00000-of-00001.parquet"))
        elif kind == "saved":
            rows.save_to_disk(str(place))
        else:
            datasets.DatasetDict(train=rows, test=table(3)).save_to_disk(str(place))
    data = load(place)
    inputs, targets = data.batch(3, 2)
    assert torch.equal(inputs, pixels(rows, range(2, 5)))
    assert targets.tolist() == [2, 0, 1]
    assert (len(data), data.classes, data.input_shape) == (6, 3, (1, 8, 8))
    if kind in ("folder", "saved splits"):
        assert len(load(place, "test")) == 3


def test_encoded_pictures_that_are_not_declared_are_decoded(tmp_path: Path) -> None:
    rows, place = table(), tmp_path / "by_pandas.parquet"
    encoded = [r["img"] for r in rows.cast_column("img", datasets.Image(decode=False))]
    pandas.DataFrame({"image": encoded, "label": [0, 1, 2] * 2}).to_parquet(place)
    assert torch.equal(load(place).batch(3, 2)[0], pixels(rows, range(2, 5)))


def test_a_folder_of_pictures_for_each_class(tmp_path: Path) -> None:
    for i, label in enumerate(("cat", "dog")):
        (tmp_path / "train" / label).mkdir(parents=True)
        Image.new("RGB", (9, 7), (0, 255 * i, 51)).save(tmp_path / "train" / label / "a.png")
    inputs, targets = load(tmp_path).batch(2)
    assert inputs.shape == (2, 3, 7, 9)
    assert inputs[:, :, 0, 0].tolist() == [[0, 0, pytest.approx(0.2)], [0, 1, pytest.approx(0.2)]]
    assert targets.tolist() == [0, 1]
    assert load(tmp_path, size=4).batch(2)[0].shape == (2, 3, 4, 4)
    assert load(tmp_path, channels=1).batch(2)[0].shape == (2, 1, 7, 9)


def test_only_the_rows_of_a_batch_are_decoded(tmp_path: Path) -> None:
    rows = table()
    with quiet():
        rows = rows.cast_column("img", datasets.Image(decode=False))
        broken = [
            r | {"img": {"bytes": b"no picture", "path": None}} if i > 2 else r for i, r in enumerate(rows)
        ]
        broken = datasets.Dataset.from_list(broken).cast(table().features)
        broken.to_parquet(str(tmp_path / "rows.parquet"))
    assert len(load(tmp_path / "rows.parquet").batch(3)[0]) == 3
    refused("cannot be decoded", name=tmp_path / "rows.parquet", size=3, first=1)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_texts_and_labels_that_are_words(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows.{ending}"
    rows = [("good film", "pos"), ("Bad, bad film", "neg")]
    if ending == "csv":
        file.write_text("sentence,label\n" + "\n".join(f'"{t}",{y}' for t, y in rows))
    else:
        file.write_text("\n".join(f'{{"sentence": "{t}", "label": "{y}"}}' for t, y in rows))
    data = load(file, vocabulary=50, max_length=4)
    inputs, targets = data.batch(2)
    good, film, bad = inputs[0, 0], inputs[0, 1], inputs[1, 0]
    assert inputs.tolist() == [[good, film, 0, 0], [bad, bad, film, 0]]
    assert len({0, int(good), int(film), int(bad)}) == 4
    assert targets.tolist() == [1, 0]
    assert data.classes == 2
    assert data.offers == {"vocabulary": 50, "length": 4, "padding": 0, "classes": 2, "input_shape": (4,)}


def test_numbers_and_columns_by_option(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": [1, 2], "b": 0.5, "c": 1}\n{"a": [3, 4], "b": 1.5, "c": 0}\n')
    inputs, targets = load(tmp_path / "rows.jsonl", input="a", target="b").batch(2)
    assert inputs.tolist() == [[1, 2], [3, 4]]
    assert targets.tolist() == [0.5, 1.5]
    assert targets.dtype == torch.float32


def test_a_probe_on_pictures_of_a_file(tmp_path: Path) -> None:
    with quiet():
        table().to_parquet(str(tmp_path / "rows.parquet"))
    problem = load_problem(data=f"hf:{tmp_path / 'rows.parquet'}", batch_size=4)
    assert problem.parameters["fc.weight"].shape[0] == 3
    assert problem.facts["source"]["data"] == f"hf:{tmp_path / 'rows.parquet'}"


def test_mistakes_in_columns(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,review,label,n\nx,y,0,1\n,y,1,2\n")
    refused("several columns", "input=COLUMN", "text, review, label, n", name=file)
    refused("Did you mean 'text'", name=file, input="txt")
    refused("Did you mean 'label'", name=file, input="text", target="lable")
    refused("empty cell", "first=", name=file, input="text", first=1)
    refused("unknown option", "Did you mean 'input'", name=file, inputs="text")
    file = tmp_path / "numbers.csv"
    file.write_text("n,m\n1,2\n")
    refused("no column", "input=COLUMN", "n, m", name=file)
    file = tmp_path / "negative.csv"
    file.write_text("text,label\nx,-1\ny,1\n")
    refused("class -1", name=file)
    file = tmp_path / "ragged.jsonl"
    file.write_text('{"x": [1, 2], "y": 0}\n{"x": [1], "y": 0}\n')
    refused("several lengths", name=file, size=2)


def test_mistakes_in_names_and_splits(tmp_path: Path) -> None:
    with quiet():
        datasets.DatasetDict(train=table(), test=table()).save_to_disk(str(tmp_path / "x"))
    refused("unknown split", "train, test", name=tmp_path / "x", split="valid")
    (tmp_path / "rows.csv").write_text("text,label\nx,0\n")
    refused("one file", "'train'", name=tmp_path / "rows.csv", split="test")
    refused("does not fit", name=tmp_path / "rows.csv", size=2)
    (tmp_path / "rows.xyz").write_text("text,label\nx,0\n")
    refused(".xyz cannot be read", name=tmp_path / "rows.xyz")
    refused("no file or folder", name=tmp_path / "nowhere")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    refused("cannot be read", name=tmp_path / "bad.parquet")
    (tmp_path / "empty").mkdir()
    refused("cannot be read", name=tmp_path / "empty")
    message = (
        "cannot be reached",
        "hf download org/rows --repo-type dataset --local-dir rows",
        "--data hf:rows",
    )
    refused(*message, name="org/rows")


def test_a_script_is_not_run(tmp_path: Path) -> None:
    (tmp_path / f"{tmp_path.name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refused("script", "does not run", name=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for side in (4, 6):
        Image.new("RGB", (side, side)).save(tmp_path / "train" / "cat" / f"{side}.png")
    with pytest.raises(UsageError, match="several sizes"):
        load(tmp_path).batch(2)
    assert load(tmp_path, size=5).batch(2)[0].shape == (2, 3, 5, 5)


def test_a_network_that_is_down_is_said_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    start = time.monotonic()
    refused("cannot be reached", name="org/rows")
    with pytest.raises(UsageError, match="cannot be reached"):
        load_problem("hf:org/tiny")
    assert time.monotonic() - start < 10


def csv(folder: Path, split: str, labels: list[object]) -> None:
    (folder / f"{split}.csv").write_text("x,label\n" + "".join(f"1.5,{v}\n" for v in labels))


def test_classes_have_the_same_numbers_in_every_split(tmp_path: Path) -> None:
    csv(tmp_path, "train", ["cat", "dog", "bird"])
    csv(tmp_path, "test", ["cat", "dog"])
    for split, numbers in (("train", [1, 2, 0]), ("test", [1, 2])):
        data = load(tmp_path, split)
        assert (data.classes, data.batch(len(data))[1].tolist()) == (3, numbers)
    alone = load(tmp_path / "test.csv", classes="bird,cat,dog")
    assert (alone.classes, alone.batch(2)[1].tolist()) == (3, [1, 2])
    refused("'dog'", "cat, bird", name=tmp_path / "test.csv", size=2, classes=["cat", "bird"])


def test_whole_numbers_and_booleans_as_classes(tmp_path: Path) -> None:
    csv(tmp_path, "train", [0, 4])
    csv(tmp_path, "test", [0, 1])
    assert load(tmp_path, "test").classes == 5
    assert load(tmp_path / "test.csv", classes=9).classes == 9
    datasets.Dataset.from_dict({"x": [0.5, 1.0], "label": [True, True]}).to_parquet(
        str(tmp_path / "b.parquet")
    )
    data = load(tmp_path / "b.parquet")
    assert (data.classes, data.batch(2)[1].tolist()) == (2, [1, 1])
