"""Which runs can be compared: of one model, loss, block and batch; what else differs is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.core.spec import canonical_json
from gradprobe.store.assemble import attribute

_FUNCTION = ("loss", "mode", "precision", "output")
"""Parts of a configuration that belong to the function that is probed."""


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        name: What messages call it.
        ds: Its results.
        place: Where they were read from; "" for results in memory.
        batches: Fingerprints of its batches, where it has several.
    """

    name: str
    ds: xr.Dataset
    place: str = ""
    batches: tuple[str, ...] = ()

    def known(self, name: str) -> dict[str, Any]:
        """A nested attribute; empty if there is none."""
        return dict(attribute(self.ds, name) or {})


def checked(runs: Sequence[Compared], dim: str, other_batches: bool) -> list[str]:
    """What a reader must know of the runs' differences.

    Raises:
        UsageError: They cannot be compared.
    """
    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least two runs, not {len(runs)}.")
    for i, run in enumerate(runs):
        for other in runs[:i]:
            check_different(other, run, dim)
    notes: dict[str, None] = {}
    for run in runs[1:]:
        _check_alike(runs[0], run, dim, other_batches)
        notes |= dict.fromkeys(_differences(runs[0], run, dim))
    if dim == "checkpoint" and any(a.known("identity") == {} for a in runs):
        notes["A run does not say which batch it is of; comparisons hold for the same batch only."] = None
    return [*notes, *_references(runs)]


def check_different(first: Compared, run: Compared, dim: str) -> None:
    """Refuse the same run twice."""
    same = first.ds is run.ds or (first.place != "" and first.place == run.place)
    if same:
        raise UsageError(f"{run.name} is given twice; give each run once.")
    mine, others = run.known("identity"), first.known("identity")
    if dim == "checkpoint" and mine and mine.get("model") == others.get("model"):
        if mine.get("batch") == others.get("batch"):
            raise UsageError(
                f"{first.name} and {run.name} are of the same weights on the same batch; give runs of different "
                "checkpoints, or dim='sigma' for runs of one at several sigmas."
            )


def _check_alike(first: Compared, run: Compared, dim: str, other_batches: bool) -> None:
    """Refuse runs that cannot be compared."""
    what = _other_model(first, run)
    mine, others = run.known("identity"), first.known("identity")
    both = mine.keys() & others.keys()
    if what is None and dim == "sigma" and "model" in both and mine["model"] != others["model"]:
        what = "other weights (runs along sigma must be of one checkpoint)"
    if what is None and run.ds.attrs.get("block") != first.ds.attrs.get("block"):
        what = f"another block ({run.ds.attrs.get('block')} copies, not {first.ds.attrs.get('block')})"
    if what is not None:
        raise UsageError(f"{run.name} and {first.name} cannot be compared: the first has {what}.")
    if ("batch" in run.ds.dims) != ("batch" in first.ds.dims):
        raise UsageError(
            f"one of {run.name} and {first.name} holds several batches; choose one of them, ds.isel(batch=0)."
        )
    if not other_batches and _other_batch(first, run):
        raise UsageError(
            f"{run.name} and {first.name} are of different batches, so a difference may be the batch's; probe the "
            "same one, or allow it with other_batches=True (--other-batches)."
        )
    if "loss" in both and mine["loss"] != others["loss"]:
        raise UsageError(
            f"{run.name} and {first.name} cannot be compared: the first has {_other_loss(first, run)}."
        )


def _other_loss(first: Compared, run: Compared) -> str:
    """What of a run's function of the output is not as the first's."""
    sizes = [r.ds.attrs.get("batch_size") for r in (run, first)]
    if sizes[0] != sizes[1]:
        return f"another size of batch ({sizes[0]}, not {sizes[1]})"
    own, theirs = run.known("configuration"), first.known("configuration")
    keys = [k for k in _FUNCTION if k in own and k in theirs and own[k] != theirs[k]]
    return f"another {keys[0]} ({own[keys[0]]}, not {theirs[keys[0]]})" if keys else "another loss"


def _other_batch(first: Compared, run: Compared) -> bool:
    mine, others = (r.known("identity").get("batch") for r in (run, first))
    common = min(len(run.batches), len(first.batches))
    if run.batches[:common] != first.batches[:common]:
        return True
    return mine is not None and others is not None and mine != others


def _other_model(first: Compared, run: Compared) -> str | None:
    """What of a run's model is not as the first's; None if it can be the same model."""
    asked, named = ([r.known("configuration").get(k) for k in ("model", "model_args")] for r in (run, first))
    if asked[0] and named[0] and asked != named:
        same = asked[0] == named[0]
        return f"another model ({asked[1] if same else asked[0]}, not {named[1] if same else named[0]})"
    mine, others = (_layers(r.ds) for r in (run, first))
    for name in (x for x in others if x not in mine):
        return f"other layers (no {name!r})"
    for name in (x for x in mine if x not in others):
        return f"other layers ({name!r} too)"
    if list(mine) != list(others):
        return "its layers in another order"
    return next((f"another layer {name!r}" for name in mine if mine[name] != others[name]), None)


def _layers(ds: xr.Dataset) -> dict[str, Any]:
    """Name of each layer -> what it is: kind, parameters and their shapes."""
    told = attribute(ds, "layers") or []
    shapes = {x["name"]: [x.get("kind"), x.get("shapes")] for x in told}
    found: dict[str, Any] = {}
    for layer, parameter, numel in zip(
        ds["layer"].values, ds["parameter"].values, ds["numel"].values, strict=True
    ):
        found.setdefault(str(layer), [shapes.get(str(layer))]).append((str(parameter), int(numel)))
    return found


def _differences(first: Compared, run: Compared, dim: str) -> list[str]:
    """Sentences on what differs and does not forbid a comparison."""
    said = []
    mine, others = run.known("identity"), first.known("identity")
    if _other_batch(first, run):
        said.append("The runs are of different batches: a difference between them may be the batch's.")
    for key, name in (("root_seed", "root seed"), ("noise_version", "version of the noise")):
        if key in mine and key in others and mine[key] != others[key]:
            said.append(
                f"{run.name} has another {name} ({mine[key]}) than {first.name} ({others[key]}): their noise is not "
                "the same, so differences are not paired."
            )
    return said


def _references(runs: Sequence[Compared]) -> list[str]:
    """A sentence on references that are not kept, because a run lacks them or has another.

    Raises:
        UsageError: No reference is left.
    """
    kept = common_references(runs)
    if not kept:
        raise UsageError(
            f"{runs[-1].name} shares no reference with {runs[0].name}; probe both with reference='bp'."
        )
    gone = dict.fromkeys(str(r) for run in runs for r in run.ds["reference"].values if str(r) not in kept)
    return [f"Reference {name!r} is not in all runs, or not of the same data, and left out." for name in gone]


def common_references(runs: Sequence[Compared]) -> list[str]:
    """References that all runs have; "dataset" only where it is of the same data."""
    sets = [[str(r) for r in run.ds["reference"].values] for run in runs]
    data = {canonical_json((run.known("dataset")).get("digest")) for run in runs}
    kept = [r for r in sets[0] if all(r in s for s in sets)]
    return [r for r in kept if r != "dataset" or len(data) == 1]
