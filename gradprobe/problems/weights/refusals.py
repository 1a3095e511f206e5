"""What is said of files that are no weights, one sentence for each kind."""

from __future__ import annotations

from pathlib import Path

from gradprobe.core.errors import UsageError

SAVE = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
"""The way out where the model can be built: weights alone, which no reader can be made to run."""

SENTENCES = {
    "empty": "is empty (0 bytes): saving or downloading it failed; fetch it again",
    "zeros": "begins with zero bytes alone ({size}): the download was not finished; fetch it again",
    "lfs": "is a Git-LFS pointer ({size}), not the weights; run 'git lfs pull' where it was cloned",
    "html": "is a web page ({size}), so the download failed; fetch the file itself, by its download link",
    "text": "is text ({size}), not weights; it begins with {begin!r}",
    "truncated zip": "is a zip that ends too early ({size}): saving or downloading it stopped halfway; fetch it "
    "again",
    "broken zip": "is a damaged zip ({size}): its checksums or its table of contents do not agree; fetch it again "
    "(or save it again without torch.serialization.set_crc32_options(False))",
    "empty zip": "is an empty zip ({size}); save the weights again",
    "zip": "is a zip archive of other things than torch.save writes; unpack it and give the checkpoint in it",
    "truncated safetensors": "is a safetensors file that ends too early: its header promises more than the {size} "
    "that are there; fetch it again",
    "broken safetensors": "looks like a safetensors file ({size}), but its header cannot be read; fetch it again",
    "torchscript": "is a TorchScript archive, which is a program and not only weights; where it is trusted, save "
    "the state_dict() of torch.jit.load(...) with safetensors.torch.save_file",
    "exported": "is a program of torch.export (.pt2), which gradprobe does not open; save the weights of the model "
    f"that it was made from: {SAVE}",
    "hdf5": "is an HDF5 file, as Keras and TensorFlow write it; convert its weights to PyTorch names and shapes, "
    f"then {SAVE}",
    "npz": "is a NumPy archive (.npz); make tensors of its arrays under the model's names and save them with "
    "safetensors.torch.save_file",
    "npy": "is one NumPy array (.npy), not named weights; save a state dict with safetensors.torch.save_file",
    "onnx": "is an ONNX model, which has no names of PyTorch modules; save the weights of the model that it was "
    f"exported from: {SAVE}",
    "tflite": "is a TensorFlow Lite model; save the weights of the PyTorch model instead",
    "gguf": "is a GGUF file of llama.cpp, usually quantised; take the model's safetensors files instead",
    "joblib": "is a file of joblib or scikit-learn, which holds no torch module; probe a model of PyTorch",
    "gzip": "is compressed with gzip; unpack it first (gunzip, or tar -xzf)",
    "zlib": "is compressed with zlib, as joblib does; it is no file of torch.save or safetensors",
    "packed": "is a compressed archive; unpack it first and give the checkpoint in it",
    "tar": "is a tar archive; unpack it first (tar -xf) and give the checkpoint in it",
    "tf index": "is the index of a TensorFlow checkpoint; convert it to PyTorch first (transformers has converters "
    "for its models)",
    "tf data": "is the data part of a TensorFlow checkpoint; convert it to PyTorch first (transformers has "
    "converters for its models)",
    "msgpack": "is a msgpack file, as Flax writes it; convert it to PyTorch first (in transformers: "
    "from_pretrained(..., from_flax=True))",
    "config": "is the configuration of a model, not its weights; give the directory that it is in, or the "
    "model.safetensors beside it",
    "adapter config": "is the configuration of an adapter (PEFT), not weights; merge the adapter into its base "
    "model (merge_and_unload) and save that",
    "json": "is a JSON file, not weights; give the safetensors file, or the directory with it",
    "legacy": "is a file of torch.save from before torch 1.6 (a bare pickle), and is not read unless it is trusted: "
    "write it anew, which runs no code of it, with torch.save(torch.load(file, weights_only=True), new), or give "
    "--trust-pickle (trust_pickle=True), which runs what code it holds",
    "pickle": "is a plain pickle{names}, which can run code when it is read, so it was not read: save the weights "
    f"with {SAVE}, or give --trust-pickle (trust_pickle=True) if you trust whoever made it",
    "unknown": "is no checkpoint of a known kind ({size}, beginning with the bytes {bytes}); save the weights with "
    f"{SAVE}",
}


def refusal(path: Path, kind: str, names: str = "") -> UsageError:
    """The error for a file of a kind that is not read.

    Args:
        path: The file.
        kind: What ``recognise`` found.
        names: For a pickle, what it would import, ready to be put behind "pickle".
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(40)
    begin = " ".join(head.decode("utf-8", errors="replace").split())
    text = SENTENCES[kind].format(size=count(size, "byte"), begin=begin, bytes=head[:8].hex(" "), names=names)
    return UsageError(f"{path} {text}.")


def count(number: int, thing: str) -> str:
    """``"1 byte"``, ``"2 bytes"``."""
    return f"{number:,} {thing}" + ("s" if number != 1 else "")


def shortened(names: list[str], most: int = 5) -> str:
    """Names in a row, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
