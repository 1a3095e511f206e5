"""Which of the units that are stored answers for an estimator's layer."""

from __future__ import annotations

from dataclasses import replace

from gradprobe.store.schema import Unit, UnitKey, View

ByKey = dict[UnitKey, list[Unit]]


def priced_alike(units: list[Unit]) -> list[Unit]:
    """Units with the share of a forward that the others of their draw and layer have.

    Old ones count a whole forward for every copy; where a run was added to since, its share is known.
    """
    shares: dict[str, float] = {}
    for unit in units:
        share = float(unit.equivalents[-1]) / unit.copies if unit.copies else 1.0
        if share < 1:
            shares[unit.key.group] = share
    found = []
    for unit in units:
        old = unit.copies > 0 and unit.key.group in shares and float(unit.equivalents[-1]) == unit.copies
        share = shares[unit.key.group] if old else 1.0
        found.append(replace(unit, equivalents=share * unit.equivalents) if old else unit)
    return found


def find_unit(by_key: ByKey, view: View, layer: str, seed: int) -> tuple[Unit, int, str] | None:
    """The unit with most copies (finished, and with most references) with this view's read-out of this layer.

    Returns:
        The unit, the read-out's row in it, and the note of a failure that it hides, or "".
    """
    serving = serving_units(by_key, view, layer, seed)
    if not serving:
        return None
    best = max(serving, key=worth)
    return best, best.readouts.index(view.sources[layer][1]), _hidden(serving, best)


def serving_units(by_key: ByKey, view: View, layer: str, seed: int) -> list[Unit]:
    """The units with this view's read-out of this layer."""
    source, readout = view.sources[layer]
    seed = seed if view.stochastic else 0
    candidates = by_key.get(UnitKey(source, layer, seed), []) + by_key.get(UnitKey(source, None, seed), [])
    return [u for u in candidates if readout in u.readouts]


def worth(unit: Unit) -> tuple[bool, int, bool, int, int]:
    """What to sort units by: any before a failed one, then copies, whether it is whole, references and extras."""
    whole = unit.status == "ok"
    return unit.status != "failed", unit.copies, whole, len(unit.references), len(unit.extras)


def _hidden(units: list[Unit], best: Unit) -> str:
    """What failed beyond the copies or references of the unit that is shown, or ""."""
    for unit in units if best.status != "failed" else ():
        more = unit.copies > best.copies or not set(unit.references) <= set(best.references)
        if unit.status == "failed" and more:
            return f"{unit.copies} copies against {' and '.join(unit.references)} failed: {unit.note}"
    return ""
