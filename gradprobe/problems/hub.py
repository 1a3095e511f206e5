"""Files of the Hugging Face hub: from a local folder, from the cache, or downloaded; a failure is one sentence."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gradprobe.core.errors import UsageError
from gradprobe.core.optional import needs
from gradprobe.problems.objects import one_line

OFFLINE_FLAGS = ("huggingface_hub.constants", "datasets.config")
Bar = tuple[Callable[[], bool], Callable[[], None], Callable[[], None]]
"""Is shown, hide, show."""

SECONDS = 5
"""How long the hub has to answer before what is stored locally is all there is."""


def local_folder(name: str) -> Path | None:
    """The folder (or file) of a name that is a path; None for a name of the hub.

    Raises:
        UsageError: It is written as a path, and there is nothing.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name or name.endswith("/"):
        raise UsageError(f"there is no file or folder {name!r} to read through Hugging Face.")
    return None


def download_command(name: str, kind: str, folder: str | None = None) -> str:
    """What to type on a machine with a network."""
    what = " --repo-type dataset" if kind == "dataset" else ""
    return f"hf download {name}{what} --local-dir {folder or name.rpartition('/')[2]}"


def snapshot(name: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The folder with a model's files, from the cache or downloaded.

    Args:
        name: Name of the repository.
        patterns: Which files; code is never among them.
        revision: Which version.

    Raises:
        UsageError: There is no such repository, or no network and nothing in the cache.
    """
    hub = needs("huggingface_hub", extra="hf", what=f"'hf:{name}'")
    try:
        with quiet():
            return Path(
                hub.snapshot_download(
                    name, revision=revision, allow_patterns=list(patterns), etag_timeout=SECONDS
                )
            )
    except Exception as error:
        raise unreachable(name, "model", error) from error


def reachable(name: str) -> bool:
    """Whether the hub answers within a few seconds, asked about a data set.

    Raises:
        UsageError: It answers that there is no such data set, or that it is not for everyone.
    """
    hub = needs("huggingface_hub", extra="hf", what=f"'hf:{name}'")
    try:
        hub.HfApi().dataset_info(name, timeout=SECONDS)
    except Exception as error:
        if _refused(error):
            raise unreachable(name, "dataset", error) from error
        return False
    return True


def unreachable(name: str, kind: str, error: Exception, folder: str | None = None) -> UsageError:
    """The error for a repository that cannot be had: what to download, and what to write then."""
    option = "--model" if kind == "model" else "--data"
    command = download_command(name, kind, folder)
    there = folder or name.rpartition("/")[2]
    refused = _refused(error)
    if refused == "RepositoryNotFoundError":
        return UsageError(
            f"the Hugging Face hub has no {kind} {name!r} that is open to you, and there is no such folder here; "
            "check its name, or log in with: hf auth login."
        )
    if refused:
        return UsageError(
            f"the Hugging Face hub does not give {name!r} to you ({one_line(error)[:200]}); accept its terms on its "
            "page and log in with: hf auth login."
        )
    return UsageError(
        f"the Hugging Face hub cannot be reached ({type(error).__name__}) and {name!r} is not in the cache; with a "
        f"network run: {command}, copy the folder here, and write {option} hf:{there}."
    )


def _refused(error: BaseException) -> str | None:
    """The name of the hub's answer, if it answered."""
    answers = ("GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError")
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((n for n in answers if n in names), None)


@contextmanager
def quiet(*, offline: bool = False) -> Iterator[None]:
    """Without progress bars and log lines of the Hugging Face libraries; as before afterwards.

    Args:
        offline: Also without the network, whose retries take minutes where it is down.
    """
    loggers = [logging.getLogger(n) for n in ("transformers", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    flags = [(m, "HF_HUB_OFFLINE") for n in OFFLINE_FLAGS if (m := sys.modules.get(n)) is not None]
    before = [getattr(module, flag) for module, flag in flags]
    bars = [b for b in _bars() if b[0]()]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        for _, disable, _ in bars:
            disable()
        for module, flag in flags if offline else []:
            setattr(module, flag, True)
        yield
    finally:
        for (module, flag), value in zip(flags, before, strict=True):
            setattr(module, flag, value)
        for _, _, enable in bars:
            enable()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _bars() -> list[Bar]:
    """The progress bars of each library that was imported."""
    found: list[Bar] = []
    for name in ("huggingface_hub.utils", "datasets"):
        if name in sys.modules:
            m = sys.modules[name]
            hidden = m.are_progress_bars_disabled
            shown = partial(lambda hidden: not hidden(), hidden)
            found.append((shown, m.disable_progress_bars, m.enable_progress_bars))
    if "transformers.utils.logging" in sys.modules:
        m = sys.modules["transformers.utils.logging"]
        found.append((m.is_progress_bar_enabled, m.disable_progress_bar, m.enable_progress_bar))
    return found
