"""A verdict: what a run says, in plain words."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr

from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.markup import listing, view
from gradprobe.report import kinds as c
from gradprobe.report.caveats import caveats, uneven_sentences
from gradprobe.report.claims import claims, laws_of, sound, uneven
from gradprobe.report.grouping import layer_sentences, meanings, model_sentences
from gradprobe.report.kinds import EXACT, TARGET
from gradprobe.report.wording import name_text, said
from gradprobe.stats._numbers import check_cosine
from gradprobe.store.along import is_comparison
from gradprobe.store.assemble import attribute
from gradprobe.store.levels import levels_beside, main_part, reference_of_levels
from gradprobe.store.paths import check_probed

DIMS = ("reference", "estimator", "parameter", "seed", "copies")
WIDTH = 100


@dataclass(frozen=True)
class Verdict:
    """What a run says in plain words.

    Attributes:
        sentences: The whole model first, then the layers of each method, then what must be known besides.
        table: One row for each layer and method, and for the model (``over`` is "model" there): ``over layer method
            stochastic kind state exact declared seeds copies``, ``cosine ceiling needed nearly encoding
            smoothing`` (each with ``_low`` and ``_high``; see :func:`gradprobe.report.claims.claims`) and
            ``sentence``.
        words: What the words of the sentences mean, of those that occur.
        facts: problem, reference, cosine and exact.
    """

    sentences: tuple[str, ...]
    table: pd.DataFrame
    words: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    def of(self, layer: str) -> tuple[str, ...]:
        """Sentences of one layer, one for each method; ``"whole model"`` for the model's.

        Raises:
            UsageError: There is no such layer.
        """
        mine = self.table[self.table["layer"] == str(layer)]
        if mine.empty:
            raise unknown("layer", layer, dict.fromkeys(self.table["layer"]))
        return tuple(mine["sentence"])

    @property
    def lines(self) -> tuple[str, ...]:
        """The sentences, and what their words mean in one more."""
        means = "; ".join(f"{word} is {text}" for word, text in self.words.items())
        return self.sentences + ((f"Words: {means}.",) if means else ())

    def __str__(self) -> str:
        width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
        lines = [
            textwrap.fill(s, width, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
            for s in self.lines
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return view(listing(self.lines, most=len(self.lines)))


def verdict(ds: xr.Dataset, reference: str = "bp", cosine: float = TARGET, exact: float = EXACT) -> Verdict:
    """Say in plain words what a run shows, and no more than it shows.

    Of every layer, and of the whole model, under every method one of these, in this order:

    ============== ==================================================================================================
    nearly exact   the cosine after the copies of the run is above ``exact``
    good           it is above ``cosine``
    against        it is negative
    bias-limited   the ceiling is below ``cosine``: no number of copies gets there
    noise-limited  the cosine is below ``cosine`` and the ceiling above it: more copies get there
    nothing        the cosine is not told from 0 (Benjamini and Hochberg: of the cosines that are quoted at most a
                   twentieth is expected to be noise, and any in a run of nothing but noise in 5 % of such runs)
    open           none of these is beyond doubt
    ============== ==================================================================================================

    or no claim: "too small" (fewer than 5 seeds or 20 blocks, for which the intervals were not checked), "law broken"
    (``goodness_of_fit`` finds dependent or unlike blocks, corrected over layers and methods; for the model, in any of
    its layers), "refused", "missing" (failed, or not computed yet), "undefined" (a zero gradient).

    **What a claim takes**: a two-sided test (Student's t over seeds of ``gp.stats.needed``'s unbiased margins, and of
    <mu, g>), corrected by Holm's method over all layers and methods with noise, so that any claim of one kind is
    false in at most 5 % of runs; and the 95 % interval that is quoted lies wholly on the right side of the threshold,
    which for the ceiling is "resolved". So a run with many layers and few seeds says less of each: five seeds and 800
    cells need effects of 16 standard errors. The model's claims are corrected over methods. Intervals are 95 %, of
    single numbers. Methods without noise need no test. All of it is about this batch.

    Levels of noise have claims of their own, held against ``smoothed`` and corrected by themselves.

    Args:
        ds: Results of one batch and one setting.
        reference: What estimates are held against, ``bp`` (default) or another of the run.
        cosine: The cosine that is asked for; default 0.9.
        exact: The cosine from which on a direction is called nearly exact; default 0.95.

    Returns:
        The verdict: ``print`` shows its sentences, ``of(layer)`` gives the details, ``table`` the numbers.

    Raises:
        UsageError: A reference is unknown, a threshold no cosine, or there is more than one batch or setting.

    Example:
        >>> found = gp.verdict(ds)
        >>> print(found.of("fc")[1])
        alr in fc: left open: cosine 0.810 [0.775, 0.844] after 100 copies, too few to tell
        noise from bias; 0.9 needs more than 820 copies, if any number is enough.
    """
    ds = one_setting(ds) if is_comparison(ds) else ds
    check_probed(ds)
    ds = one_setting(ds)
    targets = c.Targets(check_cosine(cosine), check_cosine(exact, "exact"))
    if targets.exact < targets.cosine:
        raise UsageError(
            f"exact={exact:g} is below cosine={cosine:g}; what is nearly exact must be good too."
        )
    if reference not in ds["reference"].values:
        raise unknown("reference", reference, [str(r) for r in ds["reference"].values])
    levels = levels_beside(ds)
    ds, reference = main_part(ds, reference)
    laws, tests = laws_of(ds, reference), sound(ds, reference)
    both = [claims(ds, over, reference, targets, laws, tests) for over in ("model", "layer")]
    beside = [] if levels is None else [_of_levels(levels, reference, targets)]
    table = pd.concat(both + beside, ignore_index=True)
    refused = attribute(ds, "refused") or {}
    rows: list[Any] = table.to_dict("records")
    own = rows[: len(rows) - sum(map(len, beside))]
    table["sentence"] = [_sentence(row, targets.cosine, refused) for row in rows]
    sentences = [
        *model_sentences([row for row in own if row["over"] == "model"], targets.cosine),
        *(uneven_sentences(uneven(ds, reference, laws["model"]), laws["layer"]) if laws else []),
        *layer_sentences([row for row in own if row["over"] == "layer"], targets.cosine),
        *caveats(ds, reference, table[: len(own)], tests),
    ]
    if levels is not None:
        held = reference_of_levels(levels, reference)
        sentences.append(f"Levels of noise are no part of the whole model and are held against {held}.")
        sentences += layer_sentences(rows[len(own) :], targets.cosine)
    facts = {"problem": str(ds.attrs.get("problem", "")), "reference": reference}
    words = meanings(set(table["kind"]), bool(table["declared"].any()), targets.cosine, targets.exact)
    return Verdict(tuple(sentences), table, words, facts | {"cosine": targets.cosine, "exact": targets.exact})


def _of_levels(levels: xr.Dataset, reference: str, targets: c.Targets) -> pd.DataFrame:
    """Claims of levels of noise that were probed beside weights."""
    held = reference_of_levels(levels, reference)
    return claims(levels, "layer", held, targets, laws_of(levels, held), sound(levels, held))


def one_setting(ds: xr.Dataset) -> xr.Dataset:
    """Results without further dimensions of length 1.

    Raises:
        UsageError: One is longer.
    """
    further = [str(d) for d in ds["sqnorm"].dims if d not in DIMS]
    for dim in further:
        if ds.sizes[dim] > 1:
            first = ds[dim].values.tolist()[0] if dim in ds.coords else 0
            raise UsageError(
                f"a verdict is of one {dim} and these results have {ds.sizes[dim]}; choose one, for example "
                f"gp.verdict(ds.sel({dim}={first!r}))."
            )
    return ds.isel(dict.fromkeys(further, 0))


def _sentence(row: dict[object, object], target: float, refused: dict[str, dict[str, str]]) -> str:
    why = refused.get(str(row["method"]), {}).get(str(row["layer"]), "")
    where = c.MODEL if row["over"] == "model" else name_text(row["layer"])
    return f"{name_text(row['method'])} in {where}: {said(row, target, why)}."
