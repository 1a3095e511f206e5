"""What was probed: everything that must be known to read the numbers, or to make them again."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from gradprobe.report.context import Context, one_line
from gradprobe.report.elements import joined, tag
from gradprobe.report.sections import register
from gradprobe.store.assemble import attribute


@register("probed", summary="model, checkpoint, batch, noise and versions", title="What was probed", order=20)
def probed(context: Context) -> Markup | None:
    """A list of facts; what a run does not know is not in it."""
    ds = context.ds
    wanted = attribute(ds, "configuration") or {}
    facts = {
        "Model": _model(context, wanted),
        "Checkpoint": _checkpoint(ds.attrs),
        "Batch": _batch(context, wanted),
        "Loss without noise": _number(ds.attrs.get("clean_loss")),
        "Layers": f"{len(context.layers)}, with {int(ds['numel'].sum()):,} weights",
        "Copies": _copies(context),
        "Seeds": ", ".join(str(s) for s in ds["seed"].values),
        "Methods": _methods(context),
        "References": ", ".join(str(r) for r in ds["reference"].values),
        "Device": _device(wanted),
        "Versions": _versions(attribute(ds, "environment") or {}),
    }
    rows = (tag("dt", name) + tag("dd", value) for name, value in facts.items() if value)
    return tag("dl", *rows, class_="facts")


def _model(context: Context, wanted: dict[str, Any]) -> Markup:
    name = wanted.get("model") or context.ds.attrs.get("problem") or "not named"
    mark = (attribute(context.ds, "identity") or {}).get("model")
    return joined([one_line(name), *_hashed(mark)])


def _checkpoint(attrs: dict[Any, Any]) -> Markup | None:
    weights = attrs.get("weights")
    if "checkpoint" not in attrs:
        return joined([f"none: the weights are {one_line(weights)}"]) if weights else None
    kind = f" ({one_line(attrs['checkpoint_format'])})" if "checkpoint_format" in attrs else ""
    return joined([one_line(attrs["checkpoint"]), kind, *_hashed(attrs.get("checkpoint_sha256"))])


def _hashed(mark: Any) -> list[Any]:
    return [", SHA-256 ", tag("code", str(mark))] if mark else []


def _batch(context: Context, wanted: dict[str, Any]) -> Markup | None:
    size = context.ds.attrs.get("batch_size")
    if size is None:
        return None
    about = f"{int(size)} samples"
    if wanted.get("data"):
        about += f" of {one_line(wanted['data'])}, {one_line(wanted.get('split'))}, from sample {wanted.get('first')}"
    many = context.whole.sizes.get("batch", 1)
    about += f"; the first of {many} batches" if many > 1 else ""
    return joined([about, *_hashed((attribute(context.ds, "identity") or {}).get("batch"))])


def _copies(context: Context) -> str:
    last, block = int(context.ds["copies"].values[-1]), int(context.ds.attrs["block"])
    return f"{last:,} in blocks of {block}, as nested prefixes of one run for each seed"


def _methods(context: Context) -> Markup:
    rows = []
    for label in context.methods:
        one = context.ds.sel(estimator=label)
        sigma = float(one["sigma"]) if "sigma" in one.coords else math.nan
        noise = f" (sigma {sigma:g})" if math.isfinite(sigma) else ""
        summary = f": {one_line(one['summary'].values)}" if "summary" in one.coords else ""
        rows.append(tag("div", context.method(label), noise, summary, class_=context.place(label)))
    return joined(rows)


def _device(wanted: dict[str, Any]) -> str:
    device = one_line(wanted.get("device") or "cpu") if wanted else ""
    return f"{device}, {one_line(wanted['precision'])}" if device and wanted.get("precision") else device


def _versions(found: dict[str, Any]) -> str:
    names = [k for k in found if k not in ("created", "platform")]
    said = [f"{one_line(k)} {one_line(found[k])}" for k in names]
    said += [one_line(found[k]) for k in ("platform", "created") if k in found]
    return ", ".join(said)


def _number(value: Any) -> str:
    return f"{float(value):.4g}" if value is not None else ""
