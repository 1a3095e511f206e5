"""Data as a transformers model reads them: tokens by its tokenizer, pictures by its image processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.data import Data
from gradprobe.problems.hub import quiet
from gradprobe.problems.lazy import LazyData, lazy
from gradprobe.problems.losses import IGNORED
from gradprobe.problems.models._images import fitted
from gradprobe.problems.objects import one_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
IMAGE_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class Reader:
    """Turns data into the model's inputs.

    Attributes:
        name: What the user called the model, for messages.
        folder: Its files.
        module: The model.
        task: What it is for.
    """

    name: str
    folder: Path
    module: Any
    task: str

    def adapt(self, data: Data) -> Data:
        """The data with the model's own encoding; data that are a dict for the model already stay.

        Raises:
            UsageError: The model reads something else.
        """
        rows = lazy(data)
        reads = getattr(self.module, "main_input_name", "")
        if reads == "pixel_values":
            return self._pictures(rows)
        if reads == "input_ids":
            return self._tokens(rows)
        if rows.kind == "tensor":
            return data
        raise UsageError(f"model {self.name!r} reads {reads}, which cannot be made of {rows.kind} data.")

    def _pictures(self, rows: LazyData) -> Data:
        if rows.kind in ("text", "words"):
            raise UsageError(
                f"model {self.name!r} reads pictures, but {rows.name} are texts; choose data of pictures."
            )
        config = self.module.config
        channels = getattr(config, "num_channels", 3)
        processor = self._processor() if (self.folder / IMAGE_FILE).is_file() else None
        before = rows.encode

        def encode(raw: Any, targets: torch.Tensor) -> tuple[Any, torch.Tensor]:
            if processor is not None and rows.kind == "image":
                pictures = [p.convert("RGB" if channels == 3 else "L") for p in raw]
                return {
                    "pixel_values": processor(images=pictures, return_tensors="pt")["pixel_values"]
                }, targets
            # A processor replaces the data's own encoding, which may normalise too.
            pixels, targets = (raw, targets) if processor is not None else before(raw, targets)
            if isinstance(pixels, Mapping):
                return pixels, targets
            if processor is None:
                return {"pixel_values": fitted(pixels, channels, _size(config))}, targets
            arrays = list(fitted(pixels, channels, None).numpy())
            made = processor(
                images=arrays, do_rescale=False, input_data_format="channels_first", return_tensors="pt"
            )
            return {"pixel_values": made["pixel_values"]}, targets

        return rows.encoded(encode)

    def _tokens(self, rows: LazyData) -> Data:
        if rows.kind == "image":
            raise UsageError(
                f"model {self.name!r} reads texts, but {rows.name} are pictures; choose data of texts."
            )
        if rows.kind == "tensor":
            return rows.encoded(self._ids(rows), labelled=True)
        tokenizer = self._tokenizer()
        limit = min(
            tokenizer.model_max_length, getattr(self.module.config, "max_position_embeddings", None) or 10**9
        )
        length = rows.max_length
        if length is not None and length > limit:
            raise UsageError(
                f"model {self.name!r} reads at most {limit} tokens, so max_length cannot be {length}."
            )
        options: dict[str, Any] = {"truncation": True, "max_length": length or limit, "return_tensors": "pt"}
        if limit >= 10**9 and length is None:
            options |= {"truncation": False, "max_length": None}
        options |= {"padding": "longest" if length is None else "max_length"}
        words = rows.kind == "words"
        if words != (self.task == "token-classification"):
            have = "words with a label each" if words else "whole texts"
            raise UsageError(
                f"task {self.task} does not fit {rows.name}, which are {have}; choose other data or task."
            )

        def encode(raw: Any, targets: Any) -> tuple[Any, torch.Tensor]:
            made = tokenizer(list(raw), is_split_into_words=words, **options)
            if words:
                targets = _aligned(made, targets)
            inputs = {k: v for k, v in made.items() if isinstance(v, torch.Tensor)}
            self._check_ids(inputs["input_ids"])
            return inputs, self._targets(inputs, targets)

        return rows.encoded(encode, labelled=rows.labelled or self.task.endswith("-lm"))

    def _ids(self, rows: LazyData) -> Any:
        """Numbers of words that the data have made already, for a model that reads them as they are."""
        before = rows.encode

        def encode(raw: Any, targets: torch.Tensor) -> tuple[Any, torch.Tensor]:
            ids, targets = before(raw, targets)
            if isinstance(ids, Mapping):
                return ids, targets
            if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.is_floating_point():
                raise UsageError(
                    f"model {self.name!r} reads texts or whole numbers [N, L]; choose data of texts."
                )
            self._check_ids(ids)
            padding = rows.facts.get("padding")
            mask = torch.ones_like(ids) if padding is None else ids != padding
            inputs = {"input_ids": ids.long(), "attention_mask": mask.long()}
            return inputs, self._targets(inputs, targets)

        return encode

    def _targets(self, inputs: Mapping[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """For a language model its own tokens, unmasked; else the labels."""
        if not self.task.endswith("-lm"):
            return targets
        mask = inputs.get("attention_mask")
        ids = inputs["input_ids"]
        return ids.clone() if mask is None else ids.masked_fill(mask == 0, IGNORED)

    def _check_ids(self, ids: torch.Tensor) -> None:
        size = self.module.get_input_embeddings().weight.shape[0]
        if int(ids.max()) >= size:
            raise UsageError(
                f"the data have token {int(ids.max())}, but model {self.name!r} knows {size} tokens; use the "
                "tokenizer that belongs to the model."
            )

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        if not any((self.folder / n).is_file() for n in TOKENIZER_FILES):
            raise UsageError(
                f"model {self.name!r} has no tokenizer beside it ({', '.join(TOKENIZER_FILES)}); save it there with "
                "tokenizer.save_pretrained(folder)."
            )
        try:
            with quiet():
                found = AutoTokenizer.from_pretrained(
                    self.folder, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise UsageError(
                f"the tokenizer of model {self.name!r} cannot be read: {one_line(error)}."
            ) from error
        if found.pad_token is None:
            if found.eos_token is None:
                raise UsageError(
                    f"the tokenizer of model {self.name!r} has no token to pad with; give it a pad_token."
                )
            found.pad_token = found.eos_token  # masked by attention_mask, so which one does not matter
        if getattr(self.module.config, "pad_token_id", None) is None:
            self.module.config.pad_token_id = found.pad_token_id  # classifiers look for the last real token
        return found

    def _processor(self) -> Any:
        from transformers import AutoImageProcessor

        try:
            with quiet():
                return AutoImageProcessor.from_pretrained(
                    self.folder, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise UsageError(
                f"the image processor of model {self.name!r} cannot be read: {one_line(error)}."
            ) from error


def _size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (size[0], size[1]) if isinstance(size, (tuple, list)) and len(size) == 2 else None


def _aligned(made: Any, labels: list[list[int]]) -> torch.Tensor:
    """Labels of words as labels of tokens: a word's first token has it, the others do not count."""
    rows = []
    for row, own in enumerate(labels):
        words = made.word_ids(row)
        first = [w is not None and w not in words[:i] for i, w in enumerate(words)]
        rows.append([own[w] if f else IGNORED for w, f in zip(words, first, strict=True)])
    return torch.tensor(rows)
