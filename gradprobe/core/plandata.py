"""What a plan's file must hold before a plan is made of it; each refusal is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gradprobe.core.errors import UsageError, finite, one_of, whole

PLAN_VERSION = 1
GOALS = ("cosine", "budget")
UNITS = ("equivalents", "forwards", "seconds")


def read_data(text: str, where: str) -> dict[str, Any]:
    """The fields of a plan, from JSON.

    Args:
        text: JSON, as ``Plan.to_json`` writes it.
        where: What to call it in messages.

    Returns:
        Field of ``Plan`` -> value in JSON's types, all of them checked.

    Raises:
        UsageError: It is no plan, another version wrote it, or a value in it makes no sense.
    """
    wrong = UsageError(f"{where} is no plan; make one with gp.plan(ds, cosine=0.9).save('plan.json').")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(data, dict) or "gradprobe_plan" not in data:
        raise wrong
    version = data.pop("gradprobe_plan")
    if isinstance(version, int) and version > PLAN_VERSION:
        raise UsageError(
            f"{where} was written by a newer gradprobe (plan version {version}); update gradprobe."
        )
    if type(version) is not int or version < 1:
        raise UsageError(f"{where} has no plan version that is known: {version!r}.")
    if not _has(data, _PLAN, _OPTIONAL) or not data["layers"] or not _rows(data):
        raise wrong
    try:
        _check(data)
    except UsageError as error:
        raise UsageError(f"{where} is no plan that can be used: {error}") from None
    return data


Kind = Callable[[Any], bool]


def _is(*types: type) -> Kind:
    return lambda value: type(value) in types


_REAL = _is(int, float)
_ENDS: dict[str, Kind] = dict.fromkeys(("low", "high"), _is(int, float, type(None)))
_PLAN: dict[str, Kind] = {
    **dict.fromkeys(("goal", "unit"), _is(str)),
    **dict.fromkeys(("wanted", "cost", "bound", "cosine"), _REAL),
    **dict.fromkeys(("layers", "methods", "left_out", "rivals", "notes"), _is(list)),
    "every_layer": _is(bool),
    "facts": _is(dict),
    **_ENDS,
}
_OPTIONAL = frozenset(("low", "high", "methods", "left_out", "rivals", "notes", "facts"))
_LAYER: dict[str, Kind] = {
    **dict.fromkeys(("layer", "method"), _is(str)),
    **dict.fromkeys(("copies", "scale", "cost", "share"), _REAL),
    "cosine": _is(int, float, type(None)),
    **_ENDS,
}
_RIVAL: dict[str, Kind] = {
    **dict.fromkeys(("method", "note"), _is(str)),
    **dict.fromkeys(("equal", "best"), _is(int, float, type(None))),
}


def _has(data: Any, kinds: Mapping[str, Kind], optional: frozenset[str]) -> bool:
    """Whether it has these fields with values of these kinds, and no others."""
    if not isinstance(data, dict) or not set(kinds) - optional <= set(data) <= set(kinds):
        return False
    return all(kinds[name](value) for name, value in data.items())


def _rows(data: dict[str, Any]) -> bool:
    """Whether its lists hold what they should; lists that are not there are empty."""
    for name in ("methods", "left_out", "rivals", "notes"):
        data.setdefault(name, [])
    text = _is(str)
    return (
        all(_has(x, _LAYER, frozenset(("cosine", "low", "high"))) for x in data["layers"])
        and all(_has(x, _RIVAL, frozenset(("note",))) for x in data["rivals"])
        and all(type(x) is list and len(x) == 3 and all(map(text, x)) for x in data["left_out"])
        and all(map(text, [*data["methods"], *data["notes"]]))
    )


def _check(data: Mapping[str, Any]) -> None:
    """Refuse values that make no sense.

    Raises:
        UsageError: There is one.
    """
    one_of("goal", data["goal"], GOALS)
    one_of("unit", data["unit"], UNITS)
    _numbers("the plan", data, ("wanted", "cost", "bound"), ("cosine", "low", "high"))
    for rival in data["rivals"]:
        _numbers(f"the rival {rival['method']!r}", rival, (), ("equal", "best"))
    named = [x["layer"] for x in data["layers"]]
    for x in data["layers"]:
        name = f"layer {x['layer']!r}"
        if named.count(x["layer"]) > 1:
            raise UsageError(f"{name} is there twice.")
        copies = whole(f"the copies of {name}", x["copies"], 0)
        if copies and not x["method"]:
            raise UsageError(f"{name} has copies and no method.")
        _numbers(name, x, ("scale", "cost", "share"), ("cosine", "low", "high"))


def _numbers(name: str, data: Mapping[str, Any], positive: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Refuse numbers that are not finite; the first ones must not be negative either."""
    for key in positive + others:
        value = data.get(key)
        if value is not None and (finite(f"the {key} of {name}", value) < 0) and key in positive:
            raise UsageError(f"the {key} of {name} must not be negative, not {value!r}.")
