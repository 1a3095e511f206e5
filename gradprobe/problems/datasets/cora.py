"""Cora: scientific papers that cite each other."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from gradprobe.core.errors import UsageError, one_of
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register
from gradprobe.problems.datasets._named import VARIABLE, data_folder

SPLITS = ("train", "val", "test")
FOLDERS = ("cora", "Cora", "Cora/raw", "cora/raw", "cora/cora")
PER_CLASS, VALIDATION, TEST = 20, 500, 1000
"""Sizes of the splits of Planetoid (Yang et al. 2016)."""

NUMPY = (
    "np.savez('cora.npz', x=d.x, edge_index=d.edge_index, y=d.y, train_mask=d.train_mask, val_mask=d.val_mask, "
    "test_mask=d.test_mask)"
)
TEXT = "https://linqs-data.soe.ucsc.edu/public/lbc/cora.tgz"


@register(
    "cora",
    summary="Cora: 2,708 papers with 1,433 words, citations, seven topics (Sen 2008); one graph; to be downloaded",
    offers=("features", "classes"),
    download=True,
)
def cora(split: str = "train") -> Data:
    """The graph of Cora; the split says which papers' losses count.

    Inputs are ``(x, edge_index)``: which words a paper has ``[N, 1433]`` and citations ``[2, E]``, each in both
    directions, without repetitions. Both are looked for in ``cora`` in the data folder (GRADPROBE_DATA, else
    ``./data``): ``cora.npz`` with ``x``, ``edge_index``, ``y``, ``train_mask``, ``val_mask``, ``test_mask`` (the
    public split, saved from torch_geometric's ``Planetoid``; edges as they are there), or the text files
    ``cora.content`` and ``cora.cites``.
    Planetoid's own files (``ind.cora.*``) are pickles, which gradprobe does not read.

    The text files have no split. Theirs has Planetoid's sizes (20 papers of each topic to train, then 500, then
    1,000 of the others, fewer if there are fewer), along one fixed permutation: it is not the public one.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        UsageError: Another split, or the data are nowhere.
    """
    one_of("split", split, SPLITS)
    places = [p for p in (data_folder() / name for name in FOLDERS) if p.is_dir()]
    for place in places:
        if (place / "cora.npz").is_file():
            return _whole(*_from_numpy(place / "cora.npz", split))
        if (place / "cora.content").is_file() and (place / "cora.cites").is_file():
            return _whole(*_from_text(place, split))
    folder = data_folder() / "cora"
    ways = (
        f"unpack {TEXT} into {str(folder)!r}, or save the public split there: d = torch_geometric.datasets."
        f"Planetoid('.', 'Cora')[0]; {NUMPY}"
    )
    if any(place.glob("ind.cora.*") for place in places):
        raise UsageError(f"data 'cora': ind.cora.* are pickles, which gradprobe does not read; {ways}.")
    raise UsageError(
        f"data 'cora' are not in the folder {str(data_folder())!r} (set {VARIABLE} for another); with a "
        f"network {ways}."
    )


def _whole(x: np.ndarray, edges: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Data:
    """The graph as data; weights are one over the number of chosen nodes."""
    inputs = (torch.tensor(x, dtype=torch.float32), torch.tensor(edges, dtype=torch.int64))
    targets, classes = torch.tensor(labels, dtype=torch.int64), int(labels.max()) + 1
    weights = torch.tensor(chosen / chosen.sum())
    return Data(inputs, targets, classes, {"features": x.shape[1]}, whole=True, weights=weights)


def _from_numpy(path: Path, split: str) -> tuple[np.ndarray, ...]:
    """Features, edges, labels and which nodes are in the split."""
    names = ("x", "edge_index", "y", f"{split}_mask")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive")  # NumPy would read another file by that name as one array
        with np.load(path, allow_pickle=False) as stored:
            absent = [n for n in names if n not in stored.files]
            found = [] if absent else [stored[n] for n in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"{str(path)!r} cannot be read ({type(error).__name__}); save it again by {NUMPY}."
        ) from error
    if absent:
        raise UsageError(f"{str(path)!r} lacks {', '.join(absent)}; save it again by {NUMPY}.")
    x, edges, labels, chosen = found
    if (
        x.ndim != 2
        or len(labels) != len(x)
        or edges.shape[:1] != (2,)
        or chosen.sum() < 1
        or edges.max() >= len(x)
    ):
        raise UsageError(f"{str(path)!r} holds arrays that make no graph; save it again by {NUMPY}.")
    return x, edges, labels, chosen.astype(bool)


def _from_text(folder: Path, split: str) -> tuple[np.ndarray, ...]:
    """The same from ``cora.content`` (paper, words, topic) and ``cora.cites`` (cited, citing)."""
    lines = [
        row.split()
        for row in (folder / "cora.content").read_text(encoding="utf-8").splitlines()
        if row.strip()
    ]
    lengths = {len(row) for row in lines}
    if len(lengths) != 1 or min(lengths) < 3:
        raise UsageError(
            f"{str(folder / 'cora.content')!r} has no lines of paper, words and topic; unpack {TEXT} again."
        )
    place = {row[0]: i for i, row in enumerate(lines)}
    topics = sorted({row[-1] for row in lines})
    labels = np.array([topics.index(row[-1]) for row in lines])
    try:
        x = np.array([row[1:-1] for row in lines], dtype=np.float32)
    except ValueError as error:
        raise UsageError(
            f"{str(folder / 'cora.content')!r} holds a word that is not 0 or 1; unpack {TEXT} again."
        ) from error
    cites = [row.split() for row in (folder / "cora.cites").read_text(encoding="utf-8").splitlines()]
    known = [(place[r[0]], place[r[1]]) for r in cites if len(r) == 2 and r[0] in place and r[1] in place]
    both = {edge for a, b in known if a != b for edge in ((a, b), (b, a))}
    edges = np.array(sorted(both), dtype=np.int64).reshape(-1, 2).T
    return x, edges, labels, _split(labels, split)


def _split(labels: np.ndarray, split: str) -> np.ndarray:
    """Which nodes are in the split; sizes as in Planetoid, along one fixed permutation."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(labels))
    train = np.concatenate([order[labels[order] == c][:PER_CLASS] for c in range(labels.max() + 1)])
    rest = order[~np.isin(order, train)]
    parts = {"train": train, "val": rest[:VALIDATION], "test": rest[VALIDATION : VALIDATION + TEST]}
    if not len(parts[split]):
        raise UsageError(f"data 'cora': the files have {len(labels)} papers, too few for a split {split!r}.")
    return np.isin(np.arange(len(labels)), parts[split])
