"""``hf:NAME_OR_PATH``: models of Hugging Face transformers; code that comes with a repository is never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gradprobe.core.errors import UsageError, one_of, unknown, whole
from gradprobe.core.optional import needs
from gradprobe.problems.data import Data
from gradprobe.problems.hub import local_folder, quiet, snapshot
from gradprobe.problems.losses import Loss
from gradprobe.problems.made import RANDOM, Made
from gradprobe.problems.models import register
from gradprobe.problems.models._hf_inputs import Reader
from gradprobe.problems.models._hf_loading import loading_notes
from gradprobe.problems.models._hf_losses import next_token_loss, token_loss
from gradprobe.problems.objects import one_line
from gradprobe.problems.weights.directory import has_weights, parts
from gradprobe.problems.weights.lazy import LazyTensor
from gradprobe.problems.weights.reading import read, sha256
from gradprobe.problems.weights.state import find_state

FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
OLD_FILES = ("pytorch_model*.bin",)

TASKS: dict[str, tuple[str, tuple[str, ...], Loss | None]] = {
    "image-classification": ("AutoModelForImageClassification", ("ForImageClassification",), None),
    "text-classification": ("AutoModelForSequenceClassification", ("ForSequenceClassification",), None),
    "token-classification": ("AutoModelForTokenClassification", ("ForTokenClassification",), token_loss),
    "causal-lm": ("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel"), next_token_loss),
    "masked-lm": ("AutoModelForMaskedLM", ("ForMaskedLM",), token_loss),
}
"""Task -> transformers' class, how the classes of its models end, its loss (None: cross entropy of the logits)."""


@register("hf", summary="hf:NAME or hf:FOLDER: a model of Hugging Face transformers, with its own tokenizer")
def hf(name: str, data: Data, options: Mapping[str, Any]) -> Made:
    """A transformers model from a folder, the cache or the hub.

    Weights come from safetensors files, else from ``pytorch_model.bin`` read as tensors only; where some are not in
    the files, only a head (and a pooler before it) may be new. A folder with ``config.json`` alone gives random
    weights (seed 0). Everything is computed in float32. Language models (``causal-lm``, ``masked-lm``) have the
    text itself as target, every token that is no padding; nothing is masked. Pictures go through the model's
    image processor where ``preprocessor_config.json`` is there, which then takes the place of a normalisation of
    the data, else they are scaled to [0, 1] and to the size in the model's configuration.

    Args:
        name: A folder with ``config.json``, or a name on the hub.
        data: What the model is for: where they have more classes than the head, the head is made anew.
        options: ``task``: one of :data:`TASKS`, where the configuration does not say it; ``classes``: outputs of
            the head; ``revision``; further options replace entries of the configuration.

    Raises:
        UsageError: It cannot be found or made; it needs code of its own; the weights fit nowhere.
    """
    needs("transformers", extra="hf", what=f"model 'hf:{name}'")
    options = dict(options)
    task, classes = options.pop("task", None), options.pop("classes", None)
    one_of("task", task, (None, *TASKS))
    folder = _folder(name, options.pop("revision", None))
    config = _config(name, folder, options)
    task = task or _task(name, config)
    said = _head(name, config, classes, data.classes) if task.endswith("-classification") else ()
    with quiet():
        module, weights, facts, notes = _filled(name, folder, config, task)
    if local_folder(name) is None:
        facts = {"revision": folder.name, **facts}  # the cache's folders are called by their commit
    reader = Reader(f"hf:{name}", folder, module, task)
    return Made(module, weights, reader.adapt, TASKS[task][2], {"task": task, **facts}, (*said, *notes))


def _head(name: str, config: Any, classes: int | None, found: int | None) -> tuple[str, ...]:
    """Set the number of classes: the user's, else the configuration's unless the data have more; what to say of it.

    A split that lacks some classes does not take away a trained head.
    """
    if classes is not None:
        config.num_labels = whole("classes", classes)
    elif found is not None and found > config.num_labels:
        before, config.num_labels = config.num_labels, found
        return (
            f"The head of model hf:{name} has {found} outputs, not {before}: the data have {found} classes.",
        )
    return ()


def _folder(name: str, revision: str | None) -> Path:
    """The folder with the model's files."""
    folder = local_folder(name)
    if folder is None:
        folder = snapshot(name, FILES, revision)
        if not list(folder.glob("*.safetensors")):
            folder = snapshot(name, (*FILES, *OLD_FILES), revision)
    if folder.is_file():
        folder = folder.parent
    if not (folder / "config.json").is_file():
        adapter = (
            " (it holds an adapter: merge it into its model first)" if list(folder.glob("adapter*")) else ""
        )
        raise UsageError(
            f"{str(folder)!r} holds no config.json, so it is no model of transformers{adapter}; save one there with "
            "model.save_pretrained(folder)."
        )
    return folder


def _config(name: str, folder: Path, options: Mapping[str, Any]) -> Any:
    """The configuration, with the user's entries."""
    from transformers import AutoConfig, PretrainedConfig

    try:
        with quiet():
            raw, _ = PretrainedConfig.get_config_dict(folder, local_files_only=True)
            if "auto_map" not in raw:
                config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UsageError(
            f"config.json of model 'hf:{name}' cannot be read: {one_line(error)[:300]}."
        ) from error
    if "auto_map" in raw:
        raise UsageError(
            f"model 'hf:{name}' comes with code of its own (auto_map), which gradprobe does not run; write a factory "
            "that makes it and use package.module:factory."
        )
    for kernel in _kernels(raw) + _kernels(options):
        raise UsageError(
            f"model 'hf:{name}' asks for the attention {kernel!r}, which is code from elsewhere that gradprobe does "
            "not run; write eager instead of it in config.json."
        )
    for key, value in options.items():
        if not hasattr(config, key):
            raise unknown(
                f"option of model 'hf:{name}'", key, ["task", "classes", "revision", *config.to_dict()]
            )
        setattr(config, key, value)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache is an output that nobody reads
    return config


def _kernels(entries: Any) -> list[str]:
    """Implementations of attention or experts, at any depth, that are names of repositories with code."""
    if not isinstance(entries, Mapping):
        return []
    named = [str(v) for k, v in entries.items() if "implementation" in k for v in _texts(v) if "/" in v]
    return named + [kernel for v in entries.values() for kernel in _kernels(v)]


def _texts(value: Any) -> list[str]:
    values = value.values() if isinstance(value, Mapping) else [value]
    return [v for v in values if isinstance(v, str)]


def _task(name: str, config: Any) -> str:
    """What the model is for, from the class that it was saved from."""
    architectures = list(getattr(config, "architectures", None) or [])
    for architecture in architectures:
        for task, (_, ends, _) in TASKS.items():
            if architecture.endswith(ends):
                return task
    said = ", ".join(architectures) or "none"
    raise UsageError(
        f"config.json of model 'hf:{name}' does not say what it is for (architectures: {said}); give the option "
        f"task=..., one of {', '.join(TASKS)}."
    )


def _filled(
    name: str, folder: Path, config: Any, task: str
) -> tuple[Any, str, dict[str, Any], tuple[str, ...]]:
    """The model with its weights: module, where they come from, facts, notes."""
    import transformers

    maker = getattr(transformers, TASKS[task][0])
    found = parts(folder) if has_weights(folder) else None
    try:
        if found is None:
            module = maker.from_config(config, dtype=torch.float32)
            return module, f"{RANDOM}, from config.json alone", {}, ()
        options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        options |= {"dtype": torch.float32, "config": config}
        if found.usual and found.files[0].suffix == ".safetensors":
            options |= {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
            module, info = maker.from_pretrained(folder, **options)
        else:
            state = find_state(read(folder, False, ()).value, None, str(folder)).entries
            state = {n: t.read() if isinstance(t, LazyTensor) else t for n, t in state.items()}
            kind = type(maker.from_config(config))
            module, info = kind.from_pretrained(None, state_dict=state, **options)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"model 'hf:{name}' cannot be made for {task}: {one_line(error)[:300]}.") from error
    notes = (*found.notes, *loading_notes(name, module, info))
    hashes = {file.name: sha256([file]) for file in found.files}
    return module, f"those of {', '.join(hashes)}", {"weights_sha256": hashes}, notes
