"""Calling what makes a network or reads data with what it names of what there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from gradprobe.core.errors import UsageError, unknown
from gradprobe.problems import DATASETS
from gradprobe.problems.objects import one_line


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A callable's arguments by name; none where it does not say."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}


def check_options(what: str, options: Iterable[str], takes: Iterable[str]) -> None:
    """Refuse an option that is not known.

    Args:
        what: Whose option, for the message: ``"model 'resnet5'"``.
        options: Names that were given.
        takes: Names that there are.

    Raises:
        UsageError: One is not there.
    """
    known = list(takes)
    for name in options:
        if name not in known:
            raise unknown(f"option of {what}", name, known)


def arguments(
    what: str, function: Callable[..., Any], offered: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Keyword arguments: what the callable names of what is offered, and the user's options over them.

    Raises:
        UsageError: It takes no such option.
    """
    takes = parameters_of(function)
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        check_options(what, options, takes)
    return {k: v for k, v in offered.items() if k in takes} | dict(options)


def build(
    model: str,
    factory: Callable[..., nn.Module],
    offered: Mapping[str, Any],
    options: Mapping[str, Any],
    data: str,
) -> nn.Module:
    """Call a network's factory with what the data offer and the user's options.

    Args:
        model: Its name, for messages.
        factory: The factory; of what is offered it is given the arguments that it names.
        offered: What the data offer: ``input_shape``, ``classes``, ...
        options: The user's options; they override what is offered.
        data: Name of the data, for messages.

    Raises:
        UsageError: The factory takes no such option, needs what neither data nor options give, or fails.
    """
    given = arguments(f"model {model!r}", factory, offered, options)
    for name, parameter in parameters_of(factory).items():
        named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if named and parameter.default is parameter.empty and name not in given:
            fitting = ", ".join(e.name for e in DATASETS if name in e.meta.get("offers", ()))
            raise UsageError(
                f"model {model!r} needs {name}, which data {data!r} do not offer; choose data that do"
                f"{fitting and f' ({fitting})'}, or give it as an option ({name}=...)."
            )
    try:
        return factory(**given)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"model {model!r} cannot be built for data {data!r}: {one_line(error)}.") from error
