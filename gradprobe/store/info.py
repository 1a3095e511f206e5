"""What ``run.json`` holds: what makes a run this run, and what was asked of it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer
from gradprobe.core.provenance import environment
from gradprobe.store.looks import Looks, joined_looks
from gradprobe.store.schema import KEEP, SCHEMA_VERSION, View

RUN_FILE = "run.json"


@dataclass
class RunInfo:
    """What ``run.json`` holds.

    Attributes:
        identity: What must be equal for results to belong to one run: fingerprints of model, batch and loss,
            block, root seed, noise version.
        configuration: Everything that is needed to run it again.
        layers: All layers of the model that run, in execution order.
        selected: Names of the layers that are probed.
        views: Estimators, in the order in which they were asked for.
        seeds: Seeds, in order.
        references: Names of the references.
        facts: Further facts that go into the attributes of the results.
        environment: Versions and machine.
        engines: The engine of each kind of unit; kept so that a run goes on to the same bits.
        smoothed: For each draw and layer how its smoothed reference is made: ``"pathwise"`` or ``"score"``.
        products: For each draw and layer, whether products of seeds are kept.
    """

    identity: dict[str, Any]
    configuration: dict[str, Any]
    layers: list[Layer]
    selected: list[str]
    views: list[View]
    seeds: list[int]
    references: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=environment)
    engines: dict[str, str] = field(default_factory=dict)
    smoothed: dict[str, str] = field(default_factory=dict)
    products: dict[str, str] = field(default_factory=dict)

    @property
    def keep(self) -> str:
        """What is kept; runs of schema 1 kept moments."""
        return str(self.configuration.get("keep", KEEP[0]))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {name: [x.to_dict() for x in plain[name]] for name in ("layers", "views")}
        return {"schema_version": SCHEMA_VERSION, **plain}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunInfo:
        """Inverse of :meth:`to_dict`."""
        given = {k: v for k, v in data.items() if k != "schema_version"}
        given["layers"] = [Layer.from_dict(x) for x in given["layers"]]
        given["views"] = [View.from_dict(x) for x in given["views"]]
        return cls(**given)

    def joined(self, older: RunInfo) -> RunInfo:
        """This request added to an older one of the same identity; the older one's order comes first."""
        views = {v.label: v for v in older.views}
        for view in self.views:
            views[view.label] = view.joined(views[view.label]) if view.label in views else view
        mine = {x.name for x in self.layers}
        layers = [*self.layers, *(x for x in older.layers if x.level_of and x.name not in mine)]
        merged: dict[str, Any] = {
            "layers": layers,
            "views": list(views.values()),
            "seeds": sorted({*older.seeds, *self.seeds}),
            "selected": [x.name for x in layers if x.name in {*older.selected, *self.selected}],
            "engines": self.engines | older.engines,
            "smoothed": self.smoothed | older.smoothed,
            "products": older.products | self.products,
            "references": list(dict.fromkeys([*older.references, *self.references])),
        }
        configuration = self.configuration | {
            "estimators": [v.spec or v.label for v in merged["views"]],
            "seeds": merged["seeds"],
            "reference": merged["references"],
        }
        if set(merged["selected"]) != set(self.selected):
            levels = {x.name for x in layers if x.level_of}
            configuration["layers"] = [name for name in merged["selected"] if name not in levels]
        configuration["keep"] = max(self.keep, older.keep, key=KEEP.index)
        if older.configuration.get("per_sample"):
            configuration["per_sample"] = True
        configuration["copies"] = max(
            self.configuration.get("copies", 0), older.configuration.get("copies", 0)
        )
        return RunInfo(
            self.identity,
            configuration,
            facts=self.facts | {"doctor": self._warnings(older), "doctor_table": self._looks(older)},
            environment=older.environment,
            **merged,
        )

    def _warnings(self, older: RunInfo) -> list[Any]:
        """What doctor warned of in this request, and in the older one of what this one did not look at."""
        found = list(self.facts.get("doctor", []))
        seen = {(w["check"], w["layer"]) for w in found}
        return [w for w in older.facts.get("doctor", []) if (w["check"], w["layer"]) not in seen] + found

    def _looks(self, older: RunInfo) -> Looks:
        """All that doctor saw in this request and in the older one; layers in execution order."""
        found = joined_looks(older.facts.get("doctor_table"), self.facts.get("doctor_table"))
        cells = found.get("layers", {})
        ordered = {x.name: cells[x.name] for x in self.layers if x.name in cells}
        return found | {"layers": ordered} if found else found


def read_info(path: Path) -> RunInfo:
    """Read ``run.json`` of a run directory.

    Raises:
        UsageError: There is none, it cannot be read, or a newer version wrote it.
    """
    file = path / RUN_FILE
    if not file.is_file():
        raise UsageError(f"{path} is not a gradprobe run: {_why_none(path)}.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] > SCHEMA_VERSION:
            version = data["schema_version"]
            raise UsageError(
                f"{path} was written with schema {version}; this gradprobe reads up to {SCHEMA_VERSION}. Update it."
            )
        return RunInfo.from_dict(data)
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is damaged or was not written by gradprobe: {error!r}.") from error


def _why_none(path: Path) -> str:
    """Why there is no run at a path, and where one is, if one is near."""
    wanted = "give the folder that --out or out= named"
    inside = sorted(str(file.parent) for file in path.glob(f"*/{RUN_FILE}"))
    if inside:
        more = f" (one of {len(inside)} in it)" if len(inside) > 1 else ""
        return f"it has no {RUN_FILE}; did you mean {inside[0]}{more}"
    if path.exists():
        return f"it has no {RUN_FILE}; {wanted}"
    beside = {file.parent.name: file.parent for file in path.parent.glob(f"*/{RUN_FILE}")}
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
    return f"there is nothing of that name; {f'did you mean {beside[near[0]]}' if near else wanted}"


def same_numbers(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether clean loss and gradient agree: a net under what names and representations cannot tell apart."""
    a, b = ({"": x.get("clean_loss", 0.0), **x.get("gradient_sqnorm", {})} for x in (new, old))
    scale = 1e-3 * max(old.get("total_reference_sqnorm", 0.0), 1e-30)
    if a.keys() != b.keys() or abs(a[""] - b[""]) > 1e-3 * (abs(b[""]) + 1e-6):
        return False
    return all(abs(a[k] - b[k]) <= scale for k in a if k)
