"""The schema of results: what a unit of work writes and what statistics and figures read.

A **unit** is (draw, layer or all layers, seed), or (estimator, all layers, seed) for an estimator that is no
read-out of a draw. It stores the moments of every read-out that it serves. An **estimator** in the results is
a view: for each layer it names the unit and the read-out that answer for it, so a hybrid needs no unit of its
own.

Dataset (dims ``reference``, ``estimator``, ``parameter``, ``seed``, ``copies``; all moments float64):

======================== ============================================= ==================================
variable                 dims                                          meaning
======================== ============================================= ==================================
dot                      reference, estimator, parameter, seed, copies <g_n, g>, g_n the mean of n copies
sqnorm                   estimator, parameter, seed, copies            |g_n|^2
block_sqnorm             estimator, parameter, seed, copies            mean of |B_k|^2 over the blocks so far
seed_product             estimator, parameter, seed, other_seed        <g_N^(s), g_N^(t)>, N the last copies
reference_sqnorm         reference, estimator, parameter, seed         |g|^2
reference_block_sqnorm   reference, estimator, parameter, seed         mean of |R_k|^2 over its blocks
reference_blocks         reference, estimator, parameter, seed         number of those blocks (1: no noise)
reference_dot            reference, estimator, parameter, seed         <g_bp, g>
forwards                 estimator, parameter, seed, copies            forward passes of the batch
equivalents              estimator, parameter, seed, copies            what they need, in whole forwards
seconds                  estimator, parameter, seed                    time of the unit
peak_bytes               estimator, parameter, seed                    peak memory of the unit
kept_bytes               estimator, parameter, seed                    a copy's intermediates, as they were kept
plain_bytes              estimator, parameter, seed                    the same as numbers
nonfinite                estimator, parameter, seed, copies            copies that count as 0: loss not finite
status                   estimator, parameter, seed                    ok, partial, failed, refused or missing
booked_on                estimator, parameter                          parameter with what belongs to its unit
sample_sqnorm            estimator, parameter, seed, sample            with ``per_sample``: see below
sample_product           estimator, parameter, seed, sample            likewise
sample_loss              sample                                        likewise: losses without noise
======================== ============================================= ==================================

Everything numeric is additive over parameters, so layers, groups and the model are sums. What belongs to a
unit and not to a parameter (forwards, seconds, non-finite copies, ...) is therefore booked on the first
parameter that the unit serves and is 0 on its others; ``booked_on`` names it ("" where nothing was computed).

A copy's intermediates are its noise and the inputs that it made noisy, which are kept from the forward until they are
read: as numbers, or as signs where ``storage`` says so and every read-out of the unit needs no more. NaN in runs that
were written before this was noted, and for estimators that are no read-outs of draws.

References: "bp", backprop on the clean loss of the batch; "smoothed", its mean under the draw's noise; "dataset",
backprop on the mean loss over the whole data (``attrs["dataset"]``: how many samples, their loss and digest).

Coordinates: ``layer``, ``numel`` and ``order`` (execution order) on ``parameter``; ``color``, ``target``,
``stochastic``, ``summary``, ``sigma`` (standard deviation of its noise; NaN if it has none, or several), ``method``
(label without sigma), ``copies_step`` and ``copies_fewest`` (multiples that copies come in, fewest in a block; 0 in
runs of earlier versions, whose labels tell) and ``whole`` (a copy is a whole estimate, made of many noises) on
``estimator``; where levels of noise were probed, ``level_of`` on
``parameter``: the layer whose noise it is the level of, "" for weights. An estimator may end at fewer copies than
another (NaN after). A deterministic estimator is stored once and broadcast on reading. A unit that is being
computed, or was stopped, is "partial": the blocks that it has so far are there, NaN after. Statistics leave it out
as long as it has fewer copies than every seed that is whole. Where a unit with more copies or references failed,
the one that is there is shown; ``attrs["notes"]`` says why any failed, and ``attrs["failed"]`` of which estimators.

A copy of a draw is one of ``forwards``. Its ``equivalents`` are the multiply-adds that depend on its noise, relative
to those of the whole forward: noise in a layer's output leaves only what follows the layer to be computed again. That
is what the mathematics needs, whichever engine ran (``seconds`` has that); the noise itself, the one forward without
noise and the references are not in it. An estimator that is no read-out has the forwards that it asked for, three
times each if it runs backward. Runs written before this was so have a whole forward for every copy, unless a newer
unit of the same draw and layer has its share.

``seed_product`` is symmetric over seeds, with |g_N|^2 on its diagonal. It is NaN where it is not known: for
deterministic estimators, where only moments were kept, for pairs of seeds that did not end at the same copies
or whose sums were not there together, and for units that are not finished. Its mean over pairs of different
seeds is an unbiased estimate of |mu|^2, mu the mean direction, whatever the dependence between blocks.

**Samples** (only in runs with ``per_sample``): a direction is a sum over samples b of what each contributes. Over
the blocks of the unit (the one with most copies that has them), ``sample_product`` is the mean of <H1, H2>, H1 and
H2 the mean contributions of sample b in two halves of a block: an unbiased estimate of |mu_b|^2. ``sample_sqnorm``
is the mean of (|H1|^2 + |H2|^2)/2, so that (block/2)(sample_sqnorm - sample_product) is an unbiased estimate of
tau_b, the sample's variance per copy (see :mod:`gradprobe.estimators.apart`). NaN for estimators that are no
read-outs of a draw.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe.core import spec
from gradprobe.core.errors import UsageError
from gradprobe.core.layer import Layer as LayerInfo

__all__ = ["LayerInfo", "SCHEMA_VERSION", "Unit", "UnitKey", "View"]

SCHEMA_VERSION = 2
"""2: ``products`` in run.json, products of seeds beside the units; runs of 1 can be read and added to."""

KEEP = ("moments", "products", "sums")
"""What a run may keep, from least to most."""

KEPT, TOO_LARGE = "kept", "too large"
"""What became of the products of a draw and layer."""

SAMPLE_MOMENTS = ("sample_sqnorm", "sample_product")
"""What runs with ``per_sample`` store for each sample, in ``Unit.extras``."""

REFERENCES = ("bp", "smoothed", "dataset")
REFERENCE_SCALARS = (
    "reference_sqnorm",
    "reference_block_sqnorm",
    "reference_blocks",
    "reference_dot",
)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """An estimator as results know it: which unit and read-out answer for each layer.

    Attributes:
        label: Canonical string, e.g. ``"lr(sigma=0.1)"``.
        sources: Layer name -> (draw or own label, read-out); a layer that is absent was refused.
        refused: Layer name -> the sentence that says why.
        stochastic: False: one block, the same for all seeds.
        target: What the mean equals: ``exact``, ``smoothed`` or ``surrogate``.
        color: Colour in every figure, "#rrggbb".
        summary: One line.
        spec: What makes the estimator again, where that is not the label.
        grain: Multiples that copies come in, and the fewest in a block; zeros where it is not known.
        whole: Whether a copy is a whole estimate, made of many noises.
    """

    label: str
    sources: dict[str, tuple[str, str]]
    refused: dict[str, str] = field(default_factory=dict)
    stochastic: bool = True
    target: str = "exact"
    color: str = "#666666"
    summary: str = ""
    spec: str = ""
    grain: tuple[int, int] = (0, 0)
    whole: bool = False

    @property
    def sigma(self) -> float:
        """Standard deviation of its noise; NaN if it has none, or more than one."""
        found = {_sigma(source) for source, _ in self.sources.values()}
        return found.pop() if len(found) == 1 else math.nan

    @property
    def method(self) -> str:
        """Label without sigma: what estimators that differ in sigma alone have in common."""
        try:
            own = spec.parse(self.label)
        except UsageError:
            return self.label
        return spec.label(own.name, {k: v for k, v in own.options.items() if k != "sigma"}, own.argument)

    def joined(self, older: View) -> View:
        """This view with the layers that only an older one of the same label serves."""
        sources = older.sources | self.sources
        refused = {k: v for k, v in (older.refused | self.refused).items() if k not in sources}
        return replace(self, sources=sources, refused=refused)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        plain = asdict(self)
        if not self.spec:
            del plain["spec"]  # as in runs of earlier versions
        if not any(self.grain):
            del plain["grain"]
        if not self.whole:
            del plain["whole"]
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> View:
        """Inverse of :meth:`to_dict`."""
        sources = {k: (v[0], v[1]) for k, v in data["sources"].items()}
        step, fewest = data.get("grain", (0, 0))
        return cls(**{**data, "sources": sources, "grain": (step, fewest)})


def _sigma(source: str) -> float:
    """The sigma that the text of a draw names; NaN if it names none, or one for each layer, or is a derivative's."""
    head, several, _ = source.partition(") over ")
    try:
        options = spec.parse(f"{head})" if several else head).options
    except UsageError:
        return math.nan
    value = None if options.get("measure") == "derivative" else options.get("sigma")
    return float(value) if isinstance(value, (int, float)) else math.nan


@dataclass(frozen=True)
class UnitKey:
    """What a unit computes: the draw (or an estimator's own label), which layers, which seed.

    ``layer`` is None when one draw serves all layers.
    """

    source: str
    layer: str | None
    seed: int

    @property
    def group(self) -> str:
        """Draw (or estimator) and layer: what the units of all seeds have in common."""
        return f"{self.source} | {self.layer if self.layer is not None else 'all layers'}"

    def __str__(self) -> str:
        return f"{self.group} | seed {self.seed}"


@dataclass
class Unit:
    """Moments of one unit at every block boundary.

    Attributes:
        key: What was computed.
        readouts: Names of the R read-outs.
        parameters: Names of the P parameters served.
        block: Copies in a block.
        references: Names of the references.
        dot: ``[reference, R, P, K]``.
        sqnorm: ``[R, P, K]``.
        block_sqnorm: ``[R, P, K]``, running mean over blocks.
        reference_sqnorm: ``[reference, P]``; likewise ``reference_block_sqnorm``, ``reference_blocks`` and
            ``reference_dot``.
        forwards: ``[K]`` forward passes of the batch up to each boundary; ``equivalents`` alike.
        nonfinite: ``[K]`` copies left out up to each boundary.
        seconds: Time taken.
        peak_bytes: Peak memory, NaN where it was not measured.
        kept_bytes: What a copy's intermediates took until they were read, NaN where it was not noted.
        plain_bytes: What they take as numbers, likewise.
        status: ``ok``, ``partial`` or ``failed``.
        note: Why it failed.
        extras: Further means over all its blocks ``[R, P, ...]``, by name.
    """

    key: UnitKey
    readouts: tuple[str, ...]
    parameters: tuple[str, ...]
    block: int
    references: tuple[str, ...]
    dot: Array
    sqnorm: Array
    block_sqnorm: Array
    reference_sqnorm: Array
    reference_block_sqnorm: Array
    reference_blocks: Array
    reference_dot: Array
    forwards: Array
    equivalents: Array
    nonfinite: Array
    seconds: float = float("nan")
    peak_bytes: float = float("nan")
    kept_bytes: float = float("nan")
    plain_bytes: float = float("nan")
    status: str = "ok"
    note: str = ""
    extras: dict[str, Array] = field(default_factory=dict)

    @property
    def copies(self) -> int:
        """Copies at the last boundary."""
        return self.block * self.sqnorm.shape[-1]
