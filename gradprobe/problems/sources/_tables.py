"""Tables of Hugging Face datasets: from a folder, from files, or from the hub; no script is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradprobe.core.errors import UsageError, unknown
from gradprobe.problems.hub import local_folder, quiet, reachable, unreachable
from gradprobe.problems.objects import one_line

FILES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".arrow": "arrow",
}
SAVED = ("state.json", "dataset_dict.json")


def read_table(name: str, split: str, config: str | None = None) -> Any:
    """One split as a table; its cells are decoded when they are read.

    Args:
        name: A folder that ``save_to_disk`` wrote, a parquet, csv or json file, a folder of these or of pictures
            in one folder for each class, or a name on the hub.
        split: Name of the split; a table that has none has one called train.
        config: Which of several configurations.

    Raises:
        UsageError: There is no such table or split, or it cannot be read.
    """
    import datasets

    place = local_folder(name)
    try:
        if place is not None:
            return _local(place, name, split, config)
        offline = not reachable(name)
        with quiet(offline=offline):
            return datasets.load_dataset(name, config, split=split)
    except UsageError:
        raise
    except Exception as error:
        network = isinstance(error, (ConnectionError, datasets.exceptions.DatasetNotFoundError))
        if place is None and network:
            raise unreachable(name, "dataset", error) from error
        raise _cannot(name, split, error) from error


def read_splits(name: str, table: Any, config: str | None = None) -> list[Any]:
    """All splits of the data that one split was read from, for what is the same in all of them: the classes.

    Args:
        name: As for :func:`read_table`.
        table: The split that was read; it is all there is where a file or folder holds no other.
        config: As for :func:`read_table`.
    """
    import datasets

    place = local_folder(name)
    if place is not None:
        found = _opened(place, name, config)
    else:
        try:
            with quiet(offline=not reachable(name)):
                found = datasets.load_dataset(name, config)
        except Exception as error:
            raise _cannot(name, "train", error) from error
    return list(found.values()) if isinstance(found, datasets.DatasetDict) else [table]


def _local(place: Path, name: str, split: str, config: str | None) -> Any:
    import datasets

    found = _opened(place, name, config)
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split not in found and len(found) == 1 and place.is_file():
        raise UsageError(
            f"data 'hf:{name}' are one file, whose split is {next(iter(found))!r}, not {split!r}."
        )
    if split not in found:
        raise unknown(f"split of data 'hf:{name}'", split, found)
    return found[split]


def _opened(place: Path, name: str, config: str | None) -> Any:
    """A file or a folder, with all splits where it has several."""
    import datasets

    with quiet():
        if place.is_file():
            if place.suffix not in FILES:
                raise UsageError(
                    f"data 'hf:{name}': {place.suffix or 'a file without an ending'} cannot be read; give a "
                    f"{', '.join(FILES)} file or a folder."
                )
            options: dict[str, Any] = {"sep": "\t"} if place.suffix == ".tsv" else {}
            return datasets.load_dataset(FILES[place.suffix], data_files=str(place), **options)
        if any((place / n).is_file() for n in SAVED):
            return datasets.load_from_disk(str(place))
        if any(place.glob("*.py")) and not _data_files(place):
            raise UsageError(
                f"data 'hf:{name}' are made by a script, which gradprobe does not run; convert them to parquet."
            )
        return datasets.load_dataset(str(place), config)


def _data_files(place: Path) -> bool:
    return any(p.suffix in FILES for p in place.rglob("*"))


def _cannot(name: str, split: str, error: Exception) -> UsageError:
    text = one_line(error)[:300]
    if "Config name is missing" in text or "BuilderConfig" in text:
        return UsageError(
            f"data 'hf:{name}' have several configurations; say which with config=NAME ({text})."
        )
    if "Unknown split" in text:
        return UsageError(f"data 'hf:{name}' have no split {split!r} ({text}).")
    return UsageError(
        f"data 'hf:{name}' cannot be read ({text}); give parquet, csv or json files, or a folder."
    )
