"""Files of ``torch.save``: read without running code, or refused with what they would have run."""

from __future__ import annotations

import importlib
import pickle
import pickletools
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradprobe.core.errors import UsageError
from gradprobe.problems.weights.refusals import SAVE, refusal, shortened

_RUNS = (
    "asyncio bdb code codeop commands ctypes importlib multiprocessing nt operator os pickle pip platform posix "
    "profile pty runpy shutil signal socket subprocess sys threading timeit trace webbrowser"
).split()
_REBUILDERS = ("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct", "scalar")
_WHOLE = ("torch.nn.modules.", "torch.nn.parallel.", "torch._dynamo.eval_frame.")
_LOOKED_AT = 16 * 2**20


def read_zip(path: Path, allow_globals: Sequence[str]) -> Any:
    """What a zip of ``torch.save`` holds, by torch's reader of weights alone; tensors stay on disk until used.

    Args:
        path: The file.
        allow_globals: Dotted names of classes that may be built, inside this call only.

    Raises:
        UsageError: The file names other classes or functions, or is damaged; nothing of it has run.
    """
    _check_sums(path)
    with torch.serialization.safe_globals(list(_allowed(allow_globals))):
        try:
            return _load(path, weights_only=True)
        except Exception as error:
            raise _why(path, error) from error


def read_trusted(path: Path, kind: str) -> Any:
    """What a pickle holds, running whatever code it holds: only where the user said so.

    Raises:
        UsageError: It cannot be read.
    """
    if kind == "torch zip":
        _check_sums(path)
    try:
        if kind == "pickle":
            with path.open("rb") as stream:
                return pickle.load(stream)
        return _load(path, weights_only=False)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} was pickled with classes of the module {error.name!r}, which is not installed here; install "
            f"it, or save the weights alone where it is: {SAVE}."
        ) from error
    except Exception as error:
        raise damaged(path, error) from error


def plain_pickle(path: Path) -> UsageError:
    """The error for a plain pickle: what it would import, read from its text."""
    with path.open("rb") as stream:
        names = _named(stream.read(_LOOKED_AT))
    if any(_runs(n) for n in names):
        return _unsafe_error(path, names)
    return refusal(path, "pickle", f" that names {shortened(names)}" if names else "")


def damaged(path: Path, error: Exception) -> UsageError:
    """The error for a file of a right kind that its reader refuses."""
    return UsageError(
        f"{path} is damaged or of an unknown version: its reader stopped with {type(error).__name__}; fetch or "
        f"save it again with {SAVE}."
    )


def _load(path: Path, weights_only: bool) -> Any:
    """``torch.load``, which maps a file from disk but believes the name of one that ends in .safetensors."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # what torch says of protocols and old storages is of no use to the user
        return _load_any(path, weights_only)


def _load_any(path: Path, weights_only: bool) -> Any:
    if path.suffix != ".safetensors":
        mapped = weights_only and _stored(path)
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mapped)
    with path.open("rb") as stream:
        return torch.load(stream, map_location="cpu", weights_only=weights_only)


def _stored(path: Path) -> bool:
    """Whether no part is compressed: a part mapped from disk would be taken for the tensor itself."""
    with zipfile.ZipFile(path) as archive:
        return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())


def _check_sums(path: Path) -> None:
    """Refuse a zip whose parts are not what was written: torch does not compare them."""
    try:
        with zipfile.ZipFile(path) as archive:
            damage: object = archive.testzip()
    except Exception as error:  # what a damaged part leads to is not documented
        damage = error
    if damage is not None:
        raise refusal(path, "broken zip")


def _allowed(names: Sequence[str]) -> Iterator[tuple[Any, str]]:
    if isinstance(names, str):
        raise UsageError(f"allow_globals takes a list of names, such as [{names!r}].")
    for name in names:
        if _runs(name):
            raise _cannot_be_allowed(name)
        found = _imported(name)
        if _runs(f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', name)}"):
            raise _cannot_be_allowed(name)
        if not isinstance(found, type) and not _rebuilds(name):
            raise UsageError(
                f"{name!r} is a function, which the file could call with what it likes, so it cannot be allowed; "
                f"only classes can. Save the weights alone with {SAVE}."
            )
        yield found, name
        if found is np.dtype:  # a number's type is built as one of these, which the file does not name
            yield from (
                (kind, f"numpy.dtypes.{kind.__name__}") for kind in map(type, map(np.dtype, "?bhilqBHILQefd"))
            )


def _cannot_be_allowed(name: str) -> UsageError:
    return UsageError(
        f"{name!r} runs code of the file's choice, so it cannot be allowed; no weights need it."
    )


def _rebuilds(name: str) -> bool:
    """Whether this is one of NumPy's functions that make arrays and numbers from bytes, and do nothing else."""
    module, _, attribute = name.rpartition(".")
    return module in _REBUILDERS[0] and attribute in _REBUILDERS[1]


def _is_class(name: str) -> bool:
    """Whether a global is a class, as far as that is known without importing what a file names.

    A module that has not been imported is judged by the name alone: classes begin with a capital letter.
    """
    module, _, attribute = name.rpartition(".")
    if _rebuilds(name):
        return True
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) if found is not None else attribute.lstrip("_")[:1].isupper()


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UsageError(
            f"allow_globals names {name!r}, which cannot be imported here ({error}); give the full name of an "
            "installed class, such as omegaconf.listconfig.ListConfig."
        ) from error


def _runs(name: str) -> bool:
    """Whether a global runs what a file tells it to: a shell, an import, ``eval``; plain classes do not."""
    module, _, attribute = name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        found = getattr(importlib.import_module("builtins"), attribute, None)
        return not isinstance(found, type)
    return module.split(".")[0].lstrip("_") in _RUNS


def _why(path: Path, error: Exception) -> UsageError:
    """The error for a zip that torch's reader of weights alone refused."""
    names = _unsafe(path)
    protocol = _record(path)[:2]
    if protocol[:1] == b"\x80" and protocol[1:] > b"\x03" and not any(_runs(n) for n in names):
        return UsageError(
            f"{path} was saved with pickle protocol {protocol[1]}, which torch reads only with trust; save it again "
            f"without pickle_protocol=..., or better with {SAVE}."
        )
    return _unsafe_error(path, names) if names else damaged(path, error)


def _unsafe(path: Path) -> list[str]:
    """Classes and functions of the file that its reader refused, found without running it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # torch's lister stops at newer pickle protocols, which ours reads
        return [n for n in _named(_record(path)) if n not in _usual()]


def _record(path: Path) -> bytes:
    """The pickle in a zip of torch.save, as bytes; none where it cannot be found."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == "data.pkl"]
            with archive.open(name) as stream:
                return stream.read(_LOOKED_AT)
    except Exception:  # a damaged archive fails in ways that are not documented
        return b""


def _usual() -> set[str]:
    """Names that torch's reader of weights builds in any case; a name too many is only said, never built."""
    try:
        from torch import _weights_only_unpickler as reader

        return {*reader._get_allowed_globals(), *reader._get_user_allowed_globals()}
    except (ImportError, AttributeError):  # not a public part of torch
        return set()


def _named(content: bytes) -> list[str]:
    """Globals that a pickle names, by following the strings in it; nothing is imported."""
    found: set[str] = set()
    strings: list[str] = []
    memo: dict[Any, str] = {}
    try:
        for code, value, _ in pickletools.genops(content):
            if code.name in ("GLOBAL", "INST"):
                found.add(str(value).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                found.add(".".join(strings[-2:]))
            elif code.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[len(memo) if value is None else value] = strings[-1] if strings else ""
            elif code.name in ("GET", "BINGET", "LONG_BINGET"):
                strings.append(memo.get(value, "?"))
            elif isinstance(value, str):
                strings.append(value)
    except Exception:  # cut short, or no pickle any more: what was named so far is told
        return sorted(found)
    return sorted(found)


def _unsafe_error(path: Path, names: Sequence[str]) -> UsageError:
    running = [n for n in names if _runs(n)]
    whole = [n for n in names if n.startswith(_WHOLE)]
    if running:
        text = (
            f"{path} would run code when it is read ({shortened(running)}); it was refused and nothing of it has "
            f"run: do not trust it, and get the weights as safetensors."
        )
    elif whole:
        own = [n for n in names if not n.startswith("torch.")] or whole
        text = (
            f"{path} is a whole pickled model ({shortened(own)}), which only its own code can read; where that code "
            f"is, save the weights alone with {SAVE}, or give --trust-pickle (trust_pickle=True) if you trust the "
            "file."
        )
    elif functions := [n for n in names if not _is_class(n)]:
        text = (
            f"{path} names functions that it could call ({shortened(functions)}), and nothing of it has run; weights "
            f"need none, so save them alone with {SAVE}, or give --trust-pickle (trust_pickle=True) if you trust "
            "whoever made it."
        )
    else:
        text = (
            f"{path} names classes that are built only with your word, and nothing of it has run: "
            f"{shortened(list(names))}; allow those that you trust with "
            + " ".join(f"--allow-global {n}" for n in names[:5])
            + f" (allow_globals=[...]), or save the weights alone with {SAVE}."
        )
    return UsageError(text)
