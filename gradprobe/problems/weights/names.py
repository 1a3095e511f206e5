"""Which name in the file is which name in the model: wrappers taken off or put on, by best match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradprobe.core.errors import UsageError

WRAPPERS = ("module", "model", "net", "network", "backbone")
"""First parts of names that a training script puts before all names of a model."""

TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that PyTorch's own wrappers add, anywhere in a name; no module of a user's is called so."""

RENAMED = (
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
    ("gamma", "weight"),
    ("beta", "bias"),
)
"""Endings that mean the same: weight_norm before and after torch 2.0 (both ways), and TensorFlow's of norms."""

Shapes = Mapping[str, Any]
Prefix = tuple[str, list[str]]


@dataclass(frozen=True)
class Names:
    """The best match.

    Attributes:
        pairs: Name in the model -> name in the file, whether or not the shapes agree.
        stripped: What all matched names of the file had in front, or "".
        added: What was put in front of all instead, or "".
        inner: Parts of wrappers that were taken out elsewhere in names.
        renamed: Name in the model -> name in the file where only an ending means the same.
    """

    pairs: dict[str, str]
    stripped: str = ""
    added: str = ""
    inner: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)


def match(model: Shapes, file: Shapes, strip: str = "auto") -> Names:
    """The match with most equal names and shapes; of equals, that with fewest changes.

    Every prefix is a candidate that all names share, that consists of usual wrappers, or that is the first part of
    some names: each of the file's is tried with each of the model's in its place.

    Args:
        model: Name -> shape.
        file: Name -> shape.
        strip: ``"auto"``, ``"none"`` for names as they are, or the prefix of the file that is to go.

    Raises:
        UsageError: No name begins with the prefix given.
    """
    if strip == "none":
        return Names({n: n for n in model if n in file})
    if strip != "auto":
        prefix = strip.rstrip(".") + "."
        pairs = {n: prefix + n for n in model if prefix + n in file}
        if not any(n.startswith(prefix) for n in file):
            raise UsageError(
                f"no name in the checkpoint begins with {prefix!r}; the first is {next(iter(file))!r}."
            )
        return Names(pairs, prefix)
    ours, theirs = _bare(model, file)
    best: dict[str, str] = {}
    most = (-1, -1, 0)
    for (away, ends), (front, others) in _candidates(ours, theirs):
        some = min(ends, others, key=len)
        pairs = {front + e: away + e for e in some if front + e in ours and away + e in theirs}
        equal = sum(model[ours[n]] == file[theirs[k]] for n, k in pairs.items())
        score = (equal, len(pairs), -away.count(".") - front.count("."))
        if score > most:
            best, most = pairs, score
        if equal == len(model):  # candidates come in the order of their changes
            break
    pairs = {ours[n]: theirs[k] for n, k in best.items()}
    if not pairs:
        return Names({})
    stripped, added, inner = _changes(pairs)
    used = set(pairs.values())
    as_is = {n: n for n in model if n not in pairs and n in file and n not in used and model[n] == file[n]}
    renamed = _renamed(model, file, pairs | as_is, stripped, added)
    return Names(pairs | as_is | renamed, stripped, added, inner, renamed)


def _bare(model: Shapes, file: Shapes) -> tuple[dict[str, str], dict[str, str]]:
    """Names without parts of wrappers -> names, of model and file."""
    gone = set(TRANSPARENT)
    if not any("module" in name.split(".") for name in model):
        inside = {name: _without(name, {*gone, "module"}) for name in file}
        if len(set(inside.values())) == len(inside):
            gone.add("module")
    found = []
    for names in (model, file):
        bare = {_without(name, gone): name for name in names}
        found.append(bare if len(bare) == len(names) else {name: name for name in names})
    return found[0], found[1]


def _without(name: str, parts: set[str]) -> str:
    return ".".join(p for p in name.split(".") if p not in parts)


def _candidates(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[Prefix, Prefix]]:
    """Pairs of a prefix of the file and one of the model that takes its place."""
    usual, other = _prefixes(theirs), _prefixes(ours)
    pairs = [(a, b) for a in usual.items() for b in other.items()]
    pairs += [
        (a, b) for a in _prefixes(theirs, first=True).items() if a[0] not in usual for b in other.items()
    ]
    pairs += [(a, b) for b in _prefixes(ours, first=True).items() if b[0] not in other for a in usual.items()]
    return sorted(pairs, key=lambda pair: pair[0][0].count(".") + pair[1][0].count("."))


def _prefixes(names: Iterable[str], first: bool = False) -> dict[str, list[str]]:
    """Prefixes that are usual wrappers, or the only one that there is -> ends of the names below.

    Args:
        names: The names.
        first: Also each first part of a name, which is the only way to a part of a larger model.
    """
    found = {
        "": [n for n in names if n != "n_averaged"]
    }  # the counter of an averaged model is in front of all
    todo = [""]
    for prefix in todo:
        below: dict[str, list[str]] = {}
        for end in found[prefix]:
            head, dot, rest = end.partition(".")
            below.setdefault(head + dot, []).append(rest)
        alone = len(below) == 1 or (first and not prefix)
        for head in sorted(h for h in below if h.endswith(".") and (alone or h[:-1] in WRAPPERS)):
            found[prefix + head] = below[head]
            todo.append(prefix + head)
    return found


def _renamed(
    model: Shapes, file: Shapes, pairs: Mapping[str, str], stripped: str, added: str
) -> dict[str, str]:
    """Names that match once an ending is replaced by one that means the same, where the shapes agree."""
    used, found = set(pairs.values()), {}
    for name in (n for n in model if n not in pairs):
        for one, other in (*RENAMED, *((b, a) for a, b in RENAMED[:2])):
            if not name.endswith(f".{other}") and name != other:
                continue
            there = stripped + name.removeprefix(added).removesuffix(other) + one
            if there in file and there not in used and file[there] == model[name]:
                found[name] = there
                used.add(there)
    return found


def _changes(pairs: Mapping[str, str]) -> tuple[str, str, tuple[str, ...]]:
    """What all pairs have in front in the file and in the model; else the parts that were taken out inside."""
    fronts = {_fronts(name, there) for name, there in pairs.items()}
    if len(fronts) == 1:
        there, here = next(iter(fronts))
        return there, here, ()
    parts = {p for name, there in pairs.items() for p in there.split(".") if p not in name.split(".")}
    return "", "", tuple(sorted(parts))


def _fronts(name: str, there: str) -> tuple[str, str]:
    """What is left of two names when their common end, in whole parts, is gone."""
    ours, theirs = name.split("."), there.split(".")
    while ours and theirs and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return "".join(f"{p}." for p in theirs), "".join(f"{p}." for p in ours)
