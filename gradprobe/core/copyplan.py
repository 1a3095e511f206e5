"""A plan: which method, with how many copies, for which layer. The estimator ``planned`` runs it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradprobe.core import markup, spec
from gradprobe.core.errors import UsageError, finite, whole
from gradprobe.core.plandata import PLAN_VERSION, read_data

if TYPE_CHECKING:
    import pandas as pd

_NONE = "-"


@dataclass(frozen=True)
class LayerPlan:
    """What a plan does in one layer.

    Attributes:
        layer: Name of the layer.
        method: Canonical label of the estimator; "" where the gradient is zero and nothing is estimated.
        copies: Its copies in one whole estimate; 0 where nothing is estimated.
        scale: What the direction is multiplied by, so that its mean has the gradient's length along the gradient.
        cost: Cost of one whole estimate, in the plan's unit; a draw that serves all layers is booked on the first.
        share: Share of the plan's cost.
        cosine: Predicted cosine of the layer alone; None where nothing is estimated.
        low: Lower end of its 95 % interval (of a fixed plan); None below three seeds.
        high: Upper end.
    """

    layer: str
    method: str
    copies: int
    scale: float
    cost: float
    share: float
    cosine: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rival:
    """One method in all layers, for comparison; every layer rescaled to unit gain, as in the plan.

    Attributes:
        method: Label of the estimator.
        equal: With the same copies in every layer: cost of reaching the target, or (of a budget) cosine reached;
            None where it cannot.
        best: Likewise, with the method's own best shares.
        note: Why it cannot; else "".
    """

    method: str
    equal: float | None
    best: float | None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """A method and copies for each layer: what ``gp.plan`` returns and ``gp.estimate`` and ``gp.probe`` run.

    Attributes:
        goal: ``"cosine"`` or ``"budget"``.
        wanted: The target cosine, or the budget.
        every_layer: Whether each layer has to reach the cosine by itself, not the whole model.
        unit: What costs are counted in: ``"equivalents"`` (full-forward equivalents), ``"forwards"`` or
            ``"seconds"``.
        layers: What is done in each layer, in execution order.
        cost: Cost of one whole estimate.
        bound: What no plan of these methods can cost less than (target), or the cosine that none can exceed
            (budget): the optimum with fractional copies.
        cosine: Predicted cosine of the whole model, each layer at its scale.
        low: Lower end of its 95 % interval, with what selection promises too much; None below three seeds.
        high: Upper end.
        methods: Labels of the methods that were considered.
        left_out: (method, layer or "all layers", why it was no candidate there).
        rivals: Single methods and fixed hybrids, for comparison.
        notes: What a reader must know besides.
        facts: Where it comes from: problem, seeds, copies.
    """

    goal: str
    wanted: float
    every_layer: bool
    unit: str
    layers: tuple[LayerPlan, ...]
    cost: float
    bound: float
    cosine: float
    low: float | None = None
    high: float | None = None
    methods: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()
    rivals: tuple[Rival, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entries(self) -> dict[str, tuple[str, int, float]]:
        """{layer: (method, copies, scale)}, in Python's own types.

        Raises:
            UsageError: Copies or a scale is no such number.
        """
        return {
            str(x.layer): (
                str(x.method),
                whole(f"the copies of layer {x.layer!r}", x.copies, 0),
                finite(f"the scale of layer {x.layer!r}", x.scale),
            )
            for x in self.layers
        }

    @property
    def spec(self) -> str:
        """The estimator that runs it: ``planned(layers={layer: (method, copies, scale)})``."""
        return spec.label("planned", {"layers": self.entries})

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(
            {"gradprobe_plan": PLAN_VERSION, **asdict(self)}, indent=1, allow_nan=False, default=_plain
        )

    @classmethod
    def from_json(cls, text: str, where: str = "the text") -> Plan:
        """Inverse of :meth:`to_json`.

        Args:
            text: JSON.
            where: What to call it in messages.

        Raises:
            UsageError: It is no plan, or a newer version wrote it.
        """
        data = read_data(text, where)
        data["layers"] = tuple(LayerPlan(**x) for x in data["layers"])
        data["rivals"] = tuple(Rival(**x) for x in data["rivals"])
        data["left_out"] = tuple((a, b, c) for a, b, c in data["left_out"])
        return cls(**data | {name: tuple(data[name]) for name in ("methods", "notes")})

    def save(self, file: str | Path) -> Path:
        """Write it as JSON, which :meth:`load` and ``gradprobe probe --estimators FILE.json`` read.

        Raises:
            UsageError: The name does not end in .json, or the file cannot be written.
        """
        path = Path(file)
        if path.suffix != ".json":
            raise UsageError(f"a plan is saved as a .json file, not as {str(file)!r}; add .json to the name.")
        text = self.to_json() + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; choose another file.") from error
        return path

    @classmethod
    def load(cls, file: str | Path) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: There is no such file, or it holds no plan.
        """
        path = Path(file)
        if not is_there(path):
            raise UsageError(
                f"there is no plan {str(file)!r}; make one with gradprobe plan RUN --out plan.json."
            )
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except UnicodeDecodeError:
            raise UsageError(f"{path} is no plan: it is not text.") from None
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}.") from None

    def table(self) -> pd.DataFrame:
        """One row for each layer: method, copies, scale, cost, share, cosine, low, high."""
        import pandas as pd

        rows = [asdict(x) for x in self.layers]
        names = [f.name for f in fields(LayerPlan)]
        return pd.DataFrame(rows, columns=names).set_index("layer")

    def heading(self) -> str:
        """One line: what it is for, what it costs, what it reaches."""
        each = " in every layer" if self.every_layer else ""
        goal = (
            f"cosine {self.wanted:g}{each}"
            if self.goal == "cosine"
            else f"a budget of {self.wanted:g} {self.unit}{', the worst layer as good as can be' if each else ''}"
        )
        cost = f"{self.cost:,.0f}" if self.cost >= 100 else f"{self.cost:.3g}"
        return (
            f"Plan for {goal}: {cost} {self.unit} an estimate; predicted cosine of the whole model "
            f"{with_ends(self.cosine, self.low, self.high)}"
        )

    def __str__(self) -> str:
        shown = self.table().rename(columns={"cost": f"cost ({self.unit})"})
        lines = [self.heading(), shown.to_string(float_format=lambda v: f"{v:.4g}", na_rep=_NONE)]
        return "\n".join([*lines, *self.sentences()])

    def _repr_html_(self) -> str:
        header = ["layer", "method", "copies", "scale", f"cost ({self.unit})", "share", "cosine"]
        rows = [
            [
                x.layer,
                x.method or _NONE,
                f"{x.copies:,}",
                f"{x.scale:.4g}",
                f"{x.cost:,.4g}",
                f"{x.share:.1%}",
            ]
            + [with_ends(x.cosine, x.low, x.high)]
            for x in self.layers
        ]
        name, _, said = self.heading().partition(": ")
        return markup.view(
            markup.heading(name, said),
            markup.table(header, rows, words=(1,), more="layers"),
            markup.listing(self.sentences()),
        )

    def sentences(self) -> list[str]:
        """Rivals, methods that were left out, and notes: one sentence each."""
        found = [self._against(rival) for rival in self.rivals]
        found += [f"{method} was no candidate in {layer}: {why}." for method, layer, why in self.left_out]
        return found + list(self.notes)

    def _against(self, rival: Rival) -> str:
        if rival.equal is None or rival.best is None:
            return f"{rival.method} alone: {rival.note}."
        if self.goal == "budget":
            return (
                f"{rival.method} alone: cosine {rival.equal:.3f} with equal copies per layer, {rival.best:.3f} with "
                "its best shares."
            )
        return (
            f"{rival.method} alone: {rival.equal:,.6g} {self.unit} with equal copies per layer (the plan needs "
            f"{self.cost / rival.equal:.2f} times that), {rival.best:,.6g} with its best shares "
            f"({self.cost / rival.best:.2f})."
        )


def with_ends(value: float | None, low: float | None, high: float | None) -> str:
    """``0.900 [0.880, 0.915]``; without the ends where there are none."""
    if value is None:
        return _NONE
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def number_or_none(value: float) -> float | None:
    """A finite number, or None."""
    return float(value) if math.isfinite(value) else None


def is_there(file: str | Path) -> bool:
    """Whether there is such a file; False for what can be no file's name."""
    try:
        return Path(file).is_file()
    except (OSError, ValueError):
        return False


def _plain(number: Any) -> Any:
    """A number of numpy's as Python's own, for JSON."""
    return number.item()
