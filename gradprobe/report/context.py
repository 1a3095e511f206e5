"""What the sections of a page know: the results, what was asked for, and what several of them need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from gradprobe.plots._choice import choose_layers
from gradprobe.plots._panels import law_is_there, rank_of
from gradprobe.plots._style import PaperFigure
from gradprobe.report.drawings import svg, svgs
from gradprobe.report.elements import tag
from gradprobe.report.kinds import TARGET
from gradprobe.report.palette import colors_of
from gradprobe.report.plain_words import verdict
from gradprobe.report.tables import Range
from gradprobe.stats import STATISTICS
from gradprobe.store.along import further, is_comparison, last_run, named
from gradprobe.store.assemble import attribute

GLYPHS = ("●■▲◆▼✚✖◀▶⬟⬢✱", "○□△◇▽✚✖◁▷⬠⬡✱")
"""The markers of the figures as text: filled, and open for surrogate targets."""
FLAT = "―"

POINTS = 60
"""Most points of a curve on the page."""


def one_run(whole: xr.Dataset) -> xr.Dataset:
    """The run that the page is about: of several batches the first, of several checkpoints or sigmas the last."""
    one = last_run(whole) if is_comparison(whole) else whole
    return one.isel(batch=0) if "batch" in one.dims else one


@dataclass
class Context:
    """What a section is made of.

    Attributes:
        whole: Results as they were given; with a dimension more where there are several runs or batches.
        ds: Results of one run and batch; what all sections but those about several runs show.
        reference: What estimates are held against.
        copies: Range of copies for Acc. and Sta.; None: all.
        cosine: Target of the plan.
    """

    whole: xr.Dataset
    ds: xr.Dataset
    reference: str = "bp"
    copies: Range = None
    cosine: float = TARGET

    @cached_property
    def which(self) -> str:
        """Which of several runs side by side ``ds`` is, such as "checkpoint 30"; "" where there is one."""
        if not is_comparison(self.whole):
            return ""
        dim = further(self.whole)
        return one_line(f"{dim} {self.whole[dim].values[-1]}")

    @cached_property
    def title(self) -> str:
        """What the page is about: the problem, or model, data and how many runs side by side."""
        if not self.which:
            return one_line(self.ds.attrs.get("problem", "a run"))
        dim = further(self.whole)
        parts = [named(self.whole), f"{self.whole.sizes[dim]} runs by {dim}"]
        return one_line(", ".join(part for part in parts if part))

    @cached_property
    def layers(self) -> list[str]:
        """Names of the probed layers in execution order; a layer is known to the page by its place here."""
        return choose_layers(self.ds, None)

    @cached_property
    def methods(self) -> list[str]:
        """Labels of the methods; a method is known to the page by its place here."""
        return [str(label) for label in self.ds["estimator"].values]

    @cached_property
    def kinds(self) -> list[str]:
        """Class names of the layers, "" where they are not known."""
        known = {x["name"]: x.get("kind", "") for x in attribute(self.ds, "layers") or []}
        return [str(known.get(name, "")) for name in self.layers]

    @cached_property
    def thin(self) -> xr.Dataset:
        """The run at 60 copies at most, evenly spaced on a log axis, the last among them: enough for every curve."""
        count = self.ds.sizes["copies"]
        places = (
            np.geomspace(1, count, POINTS).round().astype(int) - 1 if count > POINTS else np.arange(count)
        )
        return self.ds.isel(copies=np.unique(places))

    @cached_property
    def has_law(self) -> bool:
        """Whether the run holds the two blocks that the alignment law needs."""
        return law_is_there(self.ds)

    def law(self, over: str = "layer") -> xr.Dataset:
        """The alignment law of ``ds`` against ``reference``, computed once."""
        if over not in self._laws:
            self._laws[over] = STATISTICS.get("alignment")(self.ds, over=over, reference=self.reference)
        return self._laws[over]

    @cached_property
    def _laws(self) -> dict[str, xr.Dataset]:
        return {}

    @cached_property
    def verdict(self) -> Any:
        """What the run says in plain words."""
        return verdict(self.ds, reference=self.reference)

    def sentences_of(self, layer: str) -> list[tuple[str, str]]:
        """What the verdict says of a layer: (method, sentence)."""
        return self._said.get(layer, [])

    @cached_property
    def _said(self) -> dict[str, list[tuple[str, str]]]:
        table, found = self.verdict.table, dict[str, list[tuple[str, str]]]()
        for over, layer, method, sentence in table[["over", "layer", "method", "sentence"]].to_numpy():
            if over == "layer":
                found.setdefault(str(layer), []).append((str(method), str(sentence)))
        return found

    def svg(self, figure: PaperFigure, key: str, label: str) -> Markup:
        """A figure as part of the page; see :func:`gradprobe.report.drawings.svg`."""
        return svg(figure, key, one_line(label), colors_of(self.ds))

    def svgs(
        self, figures: Iterable[PaperFigure], keys: Sequence[str], labels: Sequence[str]
    ) -> Iterator[Markup]:
        """Figures with one frame; see :func:`gradprobe.report.drawings.svgs`."""
        return svgs(figures, keys, [one_line(x) for x in labels], colors_of(self.ds))

    def place(self, method: str) -> str:
        """Class of everything that belongs to a method: the page colours and hides it by this."""
        return f"m{self.methods.index(method)}"

    def layer_at(self, layer: str) -> int:
        """Value of the attribute ``data-l`` of everything that belongs to a layer: the page filters by this."""
        return self.layers.index(layer)

    def method(self, label: str) -> Markup:
        """A method's marker in its colour, and its name."""
        one = self.ds.sel(estimator=label)
        shapes = GLYPHS[str(one["target"].values) == "surrogate"]
        shape = shapes[rank_of(self.ds, label) % len(shapes)] + "\N{VARIATION SELECTOR-15}"
        glyph = shape if bool(one["stochastic"]) else FLAT
        mark = tag("i", glyph, class_=f"mark {self.place(label)}", aria_hidden="true")
        return mark + tag("span", one_line(label))


def one_line(name: Any) -> str:
    """A name without line breaks and other control characters."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", str(name))
