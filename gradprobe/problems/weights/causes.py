"""Why weights do not fit: the sentence, its one probable cause, and the table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gradprobe.problems.weights.fit import Fit, shape_of
from gradprobe.problems.weights.names import match
from gradprobe.problems.weights.refusals import count, shortened
from gradprobe.problems.weights.table import CheckpointError, Row

COMPARED = 20  # rows of each kind whose nearest name is looked for
POOL = 100  # names with most parts in common, which are compared letter by letter

_MARKS = (
    (
        ("lora_", "adapter"),
        "the file holds adapters (LoRA) alone; merge them into the model (merge_and_unload)",
    ),
    (
        (
            "qweight",
            "qzeros",
            "absmax",
            "quant_state",
            "SCB",
            "weight_packed",
            "weight_scale",
            "weight_scale_inv",
        ),
        "the file is quantised; take the weights before quantisation",
    ),
    (("flat_param",), "the file is of FSDP with flattened weights; save it with FULL_STATE_DICT"),
    (("parametrizations", "weight_orig", "weight_g", "weight_v", "weight_u"), ""),
    (
        ("kernel", "moving_mean", "moving_variance"),
        "the file has names of TensorFlow or Flax; convert it first",
    ),
)
_PARAMETRIZED = (
    "one of the two has a parametrization of weights (weight_norm, spectral_norm) that the other lacks; apply "
    "or remove it in the model before loading"
)


def misfit(fit: Fit, name: str, key: str | None) -> CheckpointError:
    """The error for a fit that fails: counts, the first example of each kind, one probable cause, the table.

    Args:
        fit: The comparison.
        name: What to call the checkpoint.
        key: Where its state dict lay, for the advice to take a part of it.
    """
    table = _table(fit)
    parts = [f"{len(fit.matched)} of {count(len(fit.want), 'tensor')} match"]
    for kind, saying in _SAYINGS.items():
        rows = [row for row in table if row.kind == kind]
        if rows:
            parts.append(f"{len(rows)} {saying(rows[0], len(rows))}")
    cause = next(c for c in (f(fit, key) for f in _CAUSES) if c)
    return CheckpointError(
        f"{name} does not fit the model: {', '.join(parts)}; probable cause: {cause}.", table
    )


def _first(row: Row) -> str:
    return f"{row.name!r} is {row.file} in the file and {row.model} in the model"


_SAYINGS: dict[str, Callable[[Row, int], str]] = {
    "shape": lambda r, n: f"ha{'s' if n == 1 else 've'} another shape ({_first(r)})",
    "type": lambda r, n: f"{'is' if n == 1 else 'are'} of another kind ({_first(r)})",
    "missing": lambda r, n: (
        f"{'is' if n == 1 else 'are'} missing ({r.name!r}"
        + (f"; the file has {r.near!r})" if r.near else ")")
    ),
    "unexpected": lambda r, n: f"too many in the file ({r.name!r} is not in the model)",
}


def _table(fit: Fit) -> list[Row]:
    def pair(kind: str, name: str) -> Row:
        here, there = fit.want[name], fit.have[fit.names.pairs[name]]
        if kind == "type":
            return Row(kind, name, str(here.dtype), str(there.dtype), fit.names.pairs[name])
        return Row(kind, name, str(shape_of(here)), str(shape_of(there)), fit.names.pairs[name])

    rows = [pair("shape", n) for n in fit.shapes] + [pair("type", n) for n in fit.types]
    for i, n in enumerate(fit.missing):
        near = _near(n, fit.unexpected) if i < COMPARED else ""
        rows.append(Row("missing", n, str(shape_of(fit.want[n])), "", near))
    for i, n in enumerate(fit.unexpected):
        near = _near(n, fit.missing) if i < COMPARED else ""
        rows.append(Row("unexpected", n, "", str(shape_of(fit.have[n])), near))
    return rows + [pair("matched", n) for n in fit.matched]


def _near(name: str, others: Sequence[str]) -> str:
    """The most similar name, among those with the same end if there are any."""
    end = name.rsplit(".", 1)[-1]
    same = [o for o in others if o.rsplit(".", 1)[-1] == end] or others
    parts = set(name.split("."))
    likely = sorted(same, key=lambda o: -len(parts & set(o.split("."))))[:POOL]
    return next(iter(difflib.get_close_matches(name, likely, n=1)), "")


def _marked(fit: Fit, key: str | None) -> str:
    """Parts of names that only certain tools write."""
    fitting = {fit.names.pairs[n] for n in fit.matched}
    names = [n for n in fit.have if n not in fitting] + fit.missing
    for marks, cause in _MARKS:
        if any(p.lstrip("_").startswith(marks) for n in names for p in n.split(".")):
            return cause or _PARAMETRIZED
    return ""


def _wrapped(fit: Fit, key: str | None) -> str:
    """Names that would match by best match, when they were to be taken in another way."""
    best = match(_shapes(fit.want), _shapes(fit.have))
    if len(best.pairs) == len(fit.want) > len(fit.names.pairs):
        how = f"the prefix {best.stripped!r}" if best.stripped else f"the lacking prefix {best.added!r}"
        return f"all {len(best.pairs)} names differ by {how} alone; leave strip at 'auto'"
    return ""


def _part(fit: Fit, key: str | None) -> str:
    """A model that is there in full, beside other things or twice."""
    if fit.missing or fit.shapes or fit.types:
        return ""
    front = fit.names.stripped.rstrip(".")
    if not front or any(n.startswith(f"{front}.") for n in fit.unexpected):
        return ""
    others = list(_heads(fit.unexpected))
    path = f"{key}.{front}" if key else front
    twice = any(
        set(_below(fit.unexpected, h)) >= set(_below(fit.names.pairs.values(), front)) for h in others
    )
    what = (
        f"the model twice, under {front!r} and {shortened(others)}"
        if twice
        else f"more than the model: {shortened(others)}"
    )
    return f"the file holds {what}; choose the part with --checkpoint-key {path}"


def _head(fit: Fit, key: str | None) -> str:
    """One module whose number of outputs differs, everything else alike."""
    if fit.missing or fit.unexpected or len({n.rpartition(".")[0] for n in fit.shapes}) != 1:
        return ""
    pairs = [(shape_of(fit.have[fit.names.pairs[n]]) or [], shape_of(fit.want[n]) or []) for n in fit.shapes]
    if not all(a and b and a[0] != b[0] and a[1:] == b[1:] for a, b in pairs):
        return ""
    there, here = pairs[0][0][0], pairs[0][1][0]
    return (
        f"the head differs, {there} classes in the file and {here} in the model; build the model with as "
        f"many, by the argument of its factory for that (num_classes={there}, classes={there}, ...)"
    )


def _channels(fit: Fit, key: str | None) -> str:
    """One weight of a layer that takes other inputs."""
    if fit.missing or fit.unexpected or len(fit.shapes) != 1:
        return ""
    name = fit.shapes[0]
    there, here = shape_of(fit.have[fit.names.pairs[name]]) or [], shape_of(fit.want[name]) or []
    if "pos" in name.lower():
        return f"{name!r} is made for other sizes of inputs; build the model for those of the file"
    if len(there) == len(here) > 1 and there[:1] + there[2:] == here[:1] + here[2:]:
        return (
            f"{name!r} takes {there[1]} channels in the file and {here[1]} in the model; build it for those"
        )
    return ""


def _transposed(fit: Fit, key: str | None) -> str:
    """Most other shapes are those of the model with the axes in the order of other libraries."""
    turned = 0
    for n in fit.shapes:
        there, here = shape_of(fit.have[fit.names.pairs[n]]) or [], shape_of(fit.want[n]) or []
        turned += len(here) > 1 and there in (here[::-1], [*here[2:], *here[1::-1]])
    if 2 * turned > len(fit.shapes):
        return "weights are transposed (TensorFlow, Flax, or Conv1D of GPT-2); convert them first"
    return ""


def _depth(fit: Fit, key: str | None) -> str:
    """Blocks that one side has more of: names with a number that the other side's blocks do not reach."""
    if fit.missing and fit.unexpected:
        return ""
    ours, theirs = list(fit.want), [_theirs(fit, n) for n in fit.have]
    for who, more, less in (("file", theirs, ours), ("model", ours, theirs)):
        known = {b for n in less for b in _blocks(n)}
        stacks = {b.rpartition(".")[0] for b in known}
        beyond = {
            b: None for n in more for b in _blocks(n) if b not in known and b.rpartition(".")[0] in stacks
        }
        if beyond:
            extra = shortened(list(beyond))
            return f"the {who} is a deeper network, with {extra}; build the model with as many blocks"
    return ""


def _width(fit: Fit, key: str | None) -> str:
    if fit.types and not fit.shapes:
        return "numbers of another kind, as in quantised files; take the weights before that"
    if len(fit.shapes) > 2 and not fit.missing and not fit.unexpected:
        return "another width or other inputs; build the model with the options of the file (--model-arg)"
    return ""


def _ends(fit: Fit, key: str | None) -> str:
    """One kind of tensor that only one side has: biases, statistics, a head."""
    if fit.shapes or (fit.missing and fit.unexpected):
        return ""
    names, has, lacks = (fit.missing, "model", "file") if fit.missing else (fit.unexpected, "file", "model")
    if all(n.endswith("bias") for n in names):
        return f"the {has} has biases that the {lacks} lacks; build the model with the same option for them"
    if all(n.endswith(("running_mean", "running_var", "num_batches_tracked")) for n in names):
        return f"the {lacks} has normalisation without running statistics (track_running_stats)"
    heads = _heads(names)
    here = fit.want if has == "file" else fit.have
    if not any(n.startswith(f"{h}.") for h in heads for n in here) and 2 * len(names) < len(fit.want):
        return f"the {lacks} has no {shortened([repr(h) for h in heads])}: one of the two is the network without it"
    return ""


def _order(fit: Fit, key: str | None) -> str:
    ours, theirs = (sorted(map(str, _shapes(x).values())) for x in (fit.want, fit.have))
    if ours == theirs and len(ours) > 1:
        return "the same shapes under other names, so the same network in other code; rename them"
    return ""


def _other(fit: Fit, key: str | None) -> str:
    if not fit.names.pairs:
        return "the file is of another network: no name is in both"
    return (
        "the file was saved from another network or with other options; choose those (--model, --model-arg)"
    )


_CAUSES = (
    _marked, _wrapped, _part, _head, _channels, _transposed, _depth, _width, _ends, _order, _other,
)  # fmt: skip


def _shapes(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {k: shape_of(v) for k, v in entries.items()}


def _heads(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(n.split(".", 1)[0] for n in names))


def _below(names: Iterable[str], head: str) -> list[str]:
    return [n[len(head) + 1 :] for n in names if n.startswith(f"{head}.")]


def _theirs(fit: Fit, name: str) -> str:
    """A name of the file as the model would write it."""
    return fit.names.added + name.removeprefix(fit.names.stripped)


def _blocks(name: str) -> list[str]:
    """Prefixes of a name that end in a number: ``layer4.2`` of ``layer4.2.conv1.weight``."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i, p in enumerate(parts) if p.isdigit()]
