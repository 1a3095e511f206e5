"""Models of transformers from small local folders: tasks, weights, tokens, pictures, losses, mistakes."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("datasets", reason="needs the extra hf")

import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import gradprobe as gp
from gradprobe.probes.parcel import pack, unpack
from gradprobe.problems.data import Data
from gradprobe.problems.datasets._named import from_pixels
from gradprobe.problems.hub import quiet
from gradprobe.problems.models._hf_inputs import Reader

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "dog", "ran"]
TEXTS = ["the cat sat", "the dog ran on the mat", "dog", "the mat"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def bert(folder: Path, kind: type | None = None, *, weights: bool = False, **options) -> Path:
    """A small BERT: its configuration, its weights if wanted, its tokenizer."""
    kind = kind or transformers.BertForSequenceClassification
    config = transformers.BertConfig(vocab_size=len(WORDS), **SMALL, architectures=[kind.__name__], **options)
    with quiet():
        config.save_pretrained(folder)
        if weights:
            torch.manual_seed(3)
            kind(config).save_pretrained(folder)
        tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    outer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=12
    )
    outer.save_pretrained(folder)


def vit(folder: Path, **options) -> Path:
    given = SMALL | {"image_size": 16, "patch_size": 8, "num_labels": 10} | options
    transformers.ViTConfig(**given, architectures=["ViTForImageClassification"]).save_pretrained(folder)
    return folder


def texts(folder: Path) -> str:
    lines = ["text,label", *(f"{t},{i % 2}" for i, t in enumerate(TEXTS))]
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return f"hf:{folder / 'texts.csv'}"


def refused(*words: str, **options) -> None:
    with pytest.raises(gp.UsageError) as caught:
        gp.load_problem(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_configuration_alone_gives_random_weights_of_seed_0_and_says_so(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    problem = gp.load_problem(f"hf:{vit(tmp_path)}", batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert problem.facts["weights"] == "random (seed 0), from config.json alone"
    assert problem.loss_per == "sample"
    torch.manual_seed(0)
    own = transformers.ViTForImageClassification(transformers.ViTConfig.from_pretrained(tmp_path))
    for (name, mine), theirs in zip(problem.parameters.items(), own.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_pictures_are_scaled_to_the_model_and_grey_is_repeated(tmp_path: Path) -> None:
    problem = gp.load_problem(f"hf:{vit(tmp_path)}", batch_size=4)
    digits, labels = gp.load_problem(batch_size=4).inputs, gp.load_problem(batch_size=4).target
    want = F.interpolate(digits, size=(16, 16), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    assert torch.allclose(problem.inputs["pixel_values"], want, atol=1e-6)
    logits = problem.module.eval()(problem.inputs["pixel_values"]).logits
    assert torch.allclose(problem.clean_losses().float(), F.cross_entropy(logits, labels, reduction="none"))


def test_the_image_processor_beside_the_model_is_used(tmp_path: Path) -> None:
    from PIL import Image

    folder = vit(tmp_path / "model", num_labels=2)
    settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "do_resize": True, **settings})
    )
    rng = np.random.Generator(np.random.PCG64(1))
    for label in "ab":
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "train" / label / "0.png")
    problem = gp.load_problem(f"hf:{folder}", data=f"hf:{tmp_path / 'data'}", batch_size=2)
    want = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - 0.5) / 0.25
    assert torch.allclose(problem.inputs["pixel_values"][1], want, atol=1e-5)


def test_texts_go_through_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    problem = gp.load_problem(f"hf:{bert(tmp_path)}", data=texts(tmp_path), batch_size=3)
    ids = problem.inputs["input_ids"]
    assert ids.tolist() == [[5, 6, 7, 0, 0, 0], [5, 10, 11, 8, 5, 9], [10, 0, 0, 0, 0, 0]]
    assert torch.equal(problem.inputs["attention_mask"], (ids != 0).long())
    assert problem.target.tolist() == [0, 1, 0]
    fixed = {"data": texts(tmp_path), "batch_size": 2, "data_args": {"max_length": 4}}
    assert gp.load_problem(f"hf:{tmp_path}", **fixed).inputs["input_ids"].tolist() == [
        [5, 6, 7, 0],
        [5, 10, 11, 8],
    ]


def test_inputs_that_are_tokens_already_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = bert(tmp_path / "model")
    ids = torch.tensor([[5, 6, 0], [9, 10, 11]])
    named = {"input_ids": ids, "attention_mask": (ids != 0).long(), "targets": torch.tensor([0, 1])}
    save_file(named, tmp_path / "named.safetensors")
    save_file({"inputs": ids, "targets": named["targets"]}, tmp_path / "ids.safetensors")
    code = "import torch\ndef rows():\n    return [({'input_ids': torch.tensor([5, 6])}, 1)] * 3\n"
    (tmp_path / "rows.py").write_text(code)
    given = {"batch_size": 2, "model_args": {"classes": 2}}
    problem = gp.load_problem(f"hf:{folder}", data=str(tmp_path / "named.safetensors"), **given)
    assert torch.equal(problem.inputs["attention_mask"], named["attention_mask"])
    problem = gp.load_problem(f"hf:{folder}", data=str(tmp_path / "ids.safetensors"), **given)
    assert torch.equal(problem.inputs["input_ids"], ids)
    problem = gp.load_problem(f"hf:{folder}", data=f"{tmp_path / 'rows.py'}:rows", **given)
    assert problem.inputs["input_ids"].tolist() == [[5, 6], [5, 6]]


def test_weights_are_loaded_and_their_hash_is_kept(tmp_path: Path) -> None:
    folder = bert(tmp_path, weights=True)
    problem = gp.load_problem(f"hf:{folder}", data=texts(tmp_path), batch_size=2)
    torch.manual_seed(3)
    own = transformers.BertForSequenceClassification(transformers.BertConfig.from_pretrained(folder))
    for (name, mine), theirs in zip(problem.parameters.items(), own.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert problem.facts["weights_sha256"] == {"model.safetensors": digest}
    assert "notes" not in problem.facts


def test_an_old_file_of_weights_is_read_as_tensors_only(tmp_path: Path) -> None:
    folder = bert(tmp_path / "old", weights=True)
    safe = gp.load_problem(f"hf:{folder}", data=texts(tmp_path), batch_size=2).parameters
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    problem = gp.load_problem(f"hf:{folder}", data=texts(tmp_path), batch_size=2)
    assert list(problem.facts["weights_sha256"]) == ["pytorch_model.bin"]
    assert all(torch.equal(v, safe[k]) for k, v in problem.parameters.items())


def test_code_in_an_old_file_of_weights_is_not_run(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bad")
    torch.save({"x": Evil(str(tmp_path / "ran"))}, folder / "pytorch_model.bin")
    with pytest.raises(gp.UsageError):
        gp.load_problem(f"hf:{folder}", data=texts(tmp_path), batch_size=2)
    assert not (tmp_path / "ran").exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_a_new_head_is_said(tmp_path: Path) -> None:
    folder = bert(tmp_path, transformers.BertModel, weights=True)
    given = {"data": texts(tmp_path), "batch_size": 2, "model_args": {"task": "text-classification"}}
    notes = gp.load_problem(f"hf:{folder}", **given).facts["notes"]
    assert len(notes) == 1
    assert "classifier.bias, classifier.weight" in notes[0]
    assert "random values (seed 0)" in notes[0]


def test_a_checkpoint_takes_the_place_of_the_weights_and_of_what_was_said_of_them(tmp_path: Path) -> None:
    folder = bert(tmp_path, transformers.BertModel, weights=True)
    given = {"data": texts(tmp_path), "batch_size": 2, "model_args": {"task": "text-classification"}}
    state = gp.load_problem(f"hf:{folder}", **given).module.state_dict()
    save_file({k: v.clone() for k, v in state.items()}, tmp_path / "own.safetensors")
    facts = gp.load_problem(f"hf:{folder}", tmp_path / "own.safetensors", **given).facts
    assert "checkpoint_sha256" in facts
    assert not {"notes", "weights_sha256"} & set(facts)


def test_a_head_for_more_classes_is_new_and_said(tmp_path: Path) -> None:
    folder, data = bert(tmp_path, weights=True, num_labels=5), texts(tmp_path)
    trained = load_file(folder / "model.safetensors")["classifier.weight"]
    kept = gp.load_problem(f"hf:{folder}", data=data, batch_size=2)  # a split may lack classes
    assert torch.equal(kept.parameters["classifier.weight"], trained)
    assert "notes" not in kept.facts
    own = gp.load_problem(f"hf:{folder}", data=data, batch_size=2, model_args={"classes": 2})
    assert own.parameters["classifier.weight"].shape == (2, 16)
    assert "of another shape" in own.facts["notes"][0]
    more = gp.load_problem(f"hf:{folder}", data=data, batch_size=2, data_args={"classes": 7})
    assert more.parameters["classifier.weight"].shape == (7, 16)
    assert "has 7 outputs, not 5" in more.facts["notes"][0]


def test_a_backbone_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path, weights=True)
    state, data = load_file(folder / "model.safetensors"), texts(tmp_path)
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    for part, some in enumerate((names[:5], names[5:])):
        torch.save({n: state[n] for n in some}, folder / f"pytorch_model-0000{part + 1}-of-00002.bin")
    refused("shards", "index", model=f"hf:{folder}", data=data, batch_size=2)
    for file in folder.glob("*.bin"):
        file.unlink()
    half = {n: t for n, t in state.items() if "encoder" not in n}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    refused("lack 16 of its weights", "bert.encoder", model=f"hf:{folder}", data=data, batch_size=2)


def test_only_files_that_were_read_have_their_hash_kept(tmp_path: Path) -> None:
    folder = bert(tmp_path, weights=True)
    (folder / "model.fp16.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    problem = gp.load_problem(f"hf:{folder}", data=texts(tmp_path), batch_size=2)
    assert list(problem.facts["weights_sha256"]) == ["model.safetensors"]


def test_a_kernel_of_a_repository_is_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for entry in ({"attn_implementation": "who/kernel"}, {"_attn_implementation": {"text": "who/kernel"}}):
        (folder / "config.json").write_text(json.dumps(config | {"text_config": entry}))
        refused("attention 'who/kernel'", model=f"hf:{folder}", data=texts(tmp_path), batch_size=2)


def test_padding_of_the_data_is_not_attended_to(tmp_path: Path) -> None:
    rows = torch.tensor([[5, 6, 0], [9, 10, 11]])
    data = Data(rows, torch.tensor([0, 1]), 2, {"padding": 0})
    for task, kind in (("text-classification", "Sequence"), ("masked-lm", "Masked")):
        module = getattr(transformers, f"BertFor{kind}{'LM' if kind == 'Masked' else 'Classification'}")(
            transformers.BertConfig(vocab_size=len(WORDS), **SMALL)
        )
        inputs, targets = Reader("hf:x", tmp_path, module, task).adapt(data).batch(2)
        assert inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
        assert targets.tolist() == ([[5, 6, -100], [9, 10, 11]] if task == "masked-lm" else [0, 1])


def test_pictures_are_normalised_once(tmp_path: Path) -> None:
    folder = vit(tmp_path, num_channels=3)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": False}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", **settings})
    )
    stored = torch.full((4, 3, 16, 16), 51, dtype=torch.uint8)

    def read(first: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        return stored[first : first + size], torch.zeros(size, dtype=torch.int64)

    module = transformers.ViTForImageClassification(transformers.ViTConfig.from_pretrained(folder))
    for norm in (None, ([0.1] * 3, [0.1] * 3)):
        data = from_pixels("x", read, 4, 10, norm)
        pixels = (
            Reader("hf:x", folder, module, "image-classification").adapt(data).batch(2)[0]["pixel_values"]
        )
        assert torch.allclose(pixels, torch.full_like(pixels, (0.2 - 0.5) / 0.25), atol=1e-6)


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm"])
def test_language_models_have_the_tokens_as_targets(tmp_path: Path, task: str) -> None:
    kind = {"causal-lm": "BertLMHeadModel", "masked-lm": "BertForMaskedLM"}[task]
    options = {"is_decoder": True} if task == "causal-lm" else {}
    folder = bert(tmp_path / "model", getattr(transformers, kind), **options)
    (tmp_path / "plain.csv").write_text("text\n" + "\n".join(TEXTS[:2]) + "\n")
    problem = gp.load_problem(f"hf:{folder}", data=f"hf:{tmp_path / 'plain.csv'}", batch_size=2)
    assert problem.loss_per == "sample"
    logits = problem.module.eval()(**problem.inputs).logits
    for b, length in enumerate((3, 6)):
        ids = problem.inputs["input_ids"][b, :length]
        scores = logits[b, :length].log_softmax(-1)
        pairs = range(length - 1) if task == "causal-lm" else range(length)
        shift = 1 if task == "causal-lm" else 0
        want = -sum(scores[i, ids[i + shift]] for i in pairs) / len(pairs)
        assert torch.allclose(problem.clean_losses()[b].float(), want, atol=1e-5)


def test_words_with_a_label_each_become_labels_of_first_tokens(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model", transformers.BertForTokenClassification, num_labels=3)
    rows = [{"tokens": ["the", "cat-mat"], "ner_tags": [0, 2]}, {"tokens": ["dog"], "ner_tags": [1]}]
    (tmp_path / "tags.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problem = gp.load_problem(f"hf:{folder}", data=f"hf:{tmp_path / 'tags.jsonl'}", batch_size=2)
    assert problem.target.tolist() == [[0, 2, -100, -100], [1, -100, -100, -100]]


def test_a_probe_runs_on_it_and_it_can_be_sent_to_workers(tmp_path: Path) -> None:
    problem = gp.load_problem(f"hf:{bert(tmp_path)}", data=texts(tmp_path), batch_size=3)
    ds = gp.probe(problem, ["es", "lr"], copies=8, block=4, seeds=2, layers=["classifier"])
    assert (ds.status == "ok").all()
    sent, _ = unpack(pack(problem, {}, []).data)
    assert torch.equal(sent.clean_losses(), problem.clean_losses())


def test_log_levels_and_progress_bars_are_given_back(tmp_path: Path) -> None:
    logger = logging.getLogger("transformers")
    before = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    gp.load_problem(f"hf:{bert(tmp_path)}", data=texts(tmp_path), batch_size=2)
    assert (logger.level, transformers.utils.logging.is_progress_bar_enabled()) == before


def test_mistakes_in_the_name_of_a_model(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("no config.json", "save_pretrained", model=f"hf:{empty}")
    refused("no file or folder", model="hf:./nowhere")
    refused("lacks a name", model="hf:")
    refused(
        "cannot be reached", "hf download org/tiny --local-dir tiny", "--model hf:tiny", model="hf:org/tiny"
    )
    (empty / "config.json").write_text("{not json")
    refused("config.json", "cannot be read", model=f"hf:{empty}")
    (empty / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}')
    refused("code of its own", "package.module:factory", model=f"hf:{empty}")
    (empty / "config.json").write_text('{"model_type": "no-such-type"}')
    refused("cannot be read", "no-such-type", model=f"hf:{empty}")


def test_mistakes_in_options_of_a_model(tmp_path: Path) -> None:
    folder = bert(tmp_path / "plain", transformers.BertModel)
    data = texts(tmp_path)
    refused("does not say what it is for", "BertModel", "task=", model=f"hf:{folder}", data=data)
    refused("Did you mean 'causal-lm'", model=f"hf:{folder}", data=data, model_args={"task": "causal"})
    options = {"task": "text-classification", "hiden_size": 8}
    refused("Did you mean 'hidden_size'", model=f"hf:{folder}", data=data, model_args=options)
    options = {"task": "image-classification"}
    refused("cannot be made for image-classification", model=f"hf:{folder}", data=data, model_args=options)
    other = bert(tmp_path / "other", weights=True)
    options = {"model": f"hf:{other}", "data": data, "batch_size": 2, "model_args": {"hidden_size": 32}}
    refused("is [16] in the files", "[32] in the model", **options)


def test_mistakes_in_data_for_a_model(tmp_path: Path) -> None:
    pictures, reads = vit(tmp_path / "vit"), bert(tmp_path / "bert")
    refused("reads pictures", "are texts", model=f"hf:{pictures}", data=texts(tmp_path))
    refused("reads texts or whole numbers", model=f"hf:{reads}")
    (tmp_path / "plain.csv").write_text("text\nthe cat\n")
    refused(
        "no labels", "target=COLUMN", model=f"hf:{reads}", data=f"hf:{tmp_path / 'plain.csv'}", batch_size=1
    )
    options = {"data": texts(tmp_path), "batch_size": 2, "data_args": {"max_length": 500}}
    refused("at most 12 tokens", model=f"hf:{reads}", **options)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (reads / name).unlink()
    refused("has no tokenizer beside it", model=f"hf:{reads}", data=texts(tmp_path), batch_size=2)
