"""The widget of ``gp.explore``. Imported only where ipywidgets is installed."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
import xarray as xr

from gradprobe import plots
from gradprobe.core.errors import UsageError
from gradprobe.core.markup import heading, paragraph, table, view
from gradprobe.notebook.numbers import number, with_ends
from gradprobe.notebook.picture import Picture
from gradprobe.notebook.ranges import FEWEST, Ranges
from gradprobe.notebook.run import MODEL, OWN_DIMS, facts, how_far, one_of
from gradprobe.plots._choice import choose_layers
from gradprobe.plots._style import PaperFigure

_WIDE = widgets.Layout(width="min(100%, 34em)")
_LABEL = {"description_width": "6.5em"}
LEGEND = (
    "Acc.: mean cosine over the range. Sta.: its scatter around a line. floor: the Sta. that curvature alone gives. "
    "Mean over seeds. ceiling: what no number of copies passes, from the whole run, with its 95 % interval over "
    "seeds, for this batch; no number where it is not resolved."
)


class Explorer(widgets.VBox):
    """Controls, a table of Acc. and Sta. over the chosen range, and the similarity panel with that range marked.

    Args:
        ds: Results.
        reference: What estimates are held against at first.

    Attributes:
        layer: Which layer; its ``value`` is None for the whole model.
        methods: Which methods.
        copies: First and last number of copies.
        reference: What estimates are held against.
        places: For runs side by side: dimension -> which of them.
        table: The numbers shown, one row for each method.
    """

    def __init__(self, ds: xr.Dataset, reference: str) -> None:
        self._ds = ds
        self._kept: dict[Any, Any] = {}
        labels = [str(e) for e in ds["estimator"].values]
        grid = [int(n) for n in ds["copies"].values]
        names = choose_layers(one_of(ds)[0], None)
        self.layer = widgets.Dropdown(
            options=[(MODEL, None), *((name, name) for name in names)], value=None, description="Layer"
        )
        self.methods = widgets.SelectMultiple(
            options=labels, value=labels, rows=min(len(labels), 8), description="Methods"
        )
        step = math.gcd(*(b - a for a, b in pairwise(grid))) or 1
        self.copies = widgets.IntRangeSlider(
            value=(grid[0], grid[-1]), min=grid[0], max=grid[-1], step=step, description="Copies"
        )
        known = [str(r) for r in ds["reference"].values]
        self.reference = widgets.Dropdown(options=known, value=reference, description="Reference")
        further = [str(d) for d in ds["sqnorm"].dims if d not in OWN_DIMS]
        self.places = {d: widgets.Dropdown(options=_places(ds, d), value=0, description=d) for d in further}
        controls = [*self.places.values(), self.layer, self.methods, self.copies, self.reference]
        for control, tip in zip(controls, [*further, *_TIPS], strict=True):
            control.layout, control.style, control.tooltip = _WIDE, _LABEL, tip
            control.observe(self._renew, names="value")
        self.table = pd.DataFrame()
        self._numbers, self._panel = widgets.HTML(), widgets.HTML()
        self._top = widgets.HTML(view(heading(*facts(ds)), *(paragraph(line) for line in how_far(ds))))
        self._numbers.layout.width = "min(100%, 33em)"
        both = widgets.HBox([self._numbers, self._panel], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([self._top, *controls, both])
        self._renew()

    def _repr_mimebundle_(self, **asked: Any) -> Any:
        """The widget, and a still of it for pages and viewers that show no widgets."""
        bundle = super()._repr_mimebundle_(**asked)
        still = "".join(part.value for part in (self._top, self._numbers, self._panel))
        return bundle | {"text/html": still} if isinstance(bundle, dict) else bundle

    def figure(self, save: str | Path | None = None) -> PaperFigure:
        """The similarity panel of what is chosen, as ``gp.plots.similarity`` draws it.

        Args:
            save: Path without ending: writes .png, .pdf and .json.

        Raises:
            UsageError: No method is chosen.
        """
        layer = self.layer.value
        return plots.similarity(
            self._one(),
            layers=[] if layer is None else [layer],
            model=layer is None,
            estimators=list(self.methods.value),
            reference=self.reference.value,
            width="single",
            save=save,
        )

    def _one(self) -> xr.Dataset:
        return self._ds.isel({d: place.value for d, place in self.places.items()})

    def _once(self, kind: str, *key: Any, make: Any) -> Any:
        """Something that is made once for each choice that it depends on; of pictures the last few are kept."""
        name = (kind, *(place.value for place in self.places.values()), self.reference.value, *key)
        if name not in self._kept:
            of_kind = [k for k in self._kept if k[0] == kind]
            if len(of_kind) >= _HELD:
                del self._kept[of_kind[0]]
            self._kept[name] = make()
        return self._kept[name]

    def _renew(self, change: Any = None) -> None:
        """Show what is chosen now; a refusal is shown as a sentence."""
        try:
            self._show()
        except UsageError as error:
            self._numbers.value = view(paragraph(str(error)))
            self._panel.value = ""

    def _show(self) -> None:
        first, last = self.copies.value
        layer, chosen = self.layer.value, list(self.methods.value)
        if not chosen:
            raise UsageError("choose at least one method.")
        reference = self.reference.value
        ranges = self._once("ranges", make=lambda: Ranges(self._one(), reference))
        found = ranges.numbers(first, last, layer)
        self.table = pd.DataFrame(
            found, index=pd.Index([str(e) for e in self._ds["estimator"].values], name="method")
        ).loc[chosen]
        self._numbers.value = self._written(first, last)
        picture = self._once(
            "picture",
            layer,
            tuple(chosen),
            make=lambda: Picture(self._one(), layer, chosen, reference),
        )
        where = MODEL if layer is None else f"layer {layer}"
        self._panel.value = picture.html(
            first, last, f"Cosine with {reference} against copies, {where}, {first} to {last} copies marked."
        )

    def _written(self, first: int, last: int) -> str:
        """The table as HTML."""
        where = MODEL if self.layer.value is None else self.layer.value
        rows = []
        for method, row in self.table.iterrows():
            state = str(row.get("state", ""))
            ends = [row.get(f"ceiling{end}", float("nan")) for end in ("", "_low", "_high")]
            ceiling = with_ends("ceiling", *ends) if state == "resolved" else state
            rows.append(
                [str(method), *(number(n, row[n]) for n in ("accuracy", "stability", "floor")), ceiling]
            )
        grid = self._ds["copies"].values
        few = int(((grid >= first) & (grid <= last)).sum()) < FEWEST
        said = [f"Sta. needs {FEWEST} stored points; widen the range."] * few + [LEGEND]
        return view(
            heading(str(where), f"{first:,} to {last:,} copies", f"reference {self.reference.value}"),
            table(["method", "Acc.", "Sta.", "floor", "ceiling"], rows, more="methods", most=40),
            *(paragraph(line, small=True) for line in said),
        )


_TIPS = (
    "Layer that is shown, or the whole model",
    "Methods that are shown",
    "Range of copies for Acc. and Sta.",
    "What estimates are held against",
)
_HELD = 12
"""Pictures (and tables of ranges) that are kept for going back to."""


def _places(ds: xr.Dataset, dim: str) -> list[tuple[str, int]]:
    labels = ds[dim].values if dim in ds.coords else range(ds.sizes[dim])
    return [(str(label), index) for index, label in enumerate(labels)]
