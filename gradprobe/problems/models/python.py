"""``package.module:factory`` and ``path/file.py:factory``: a model that the user's own Python makes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from gradprobe.core.errors import UsageError
from gradprobe.problems.build import build
from gradprobe.problems.data import Data
from gradprobe.problems.made import Made
from gradprobe.problems.models import register
from gradprobe.problems.objects import find_object
from gradprobe.problems.seeded import seed_all


@register(
    "python",
    summary="package.module:factory or path/file.py:factory: a factory, a Module class, or a module",
    written="package.module:factory, FILE.py:factory",
)
def python(name: str, data: Data, options: Mapping[str, Any]) -> Made:
    """A model from a factory, a class of modules, or a module that exists; random draws have seed 0.

    Args:
        name: ``package.module:name`` (the current directory is searched first, as by ``python -m``) or
            ``path/file.py:name``.
        data: What the model is for; a factory is given what it names of what they offer.
        options: Further arguments of the factory.

    Raises:
        UsageError: There is nothing of that name, it cannot be called so, or it gives no module.
    """
    found = find_object(name, "model")
    seed_all()  # whether or not the module was imported just now, which may have drawn
    if isinstance(found, nn.Module):
        if options:
            raise UsageError(
                f"model {name!r} is a module that exists already, so it takes no options ({', '.join(options)}); "
                "name a factory instead."
            )
        return Made(copy.deepcopy(found), f"those of {name}")
    if not callable(found):
        raise UsageError(
            f"model {name!r} is of type {type(found).__name__}; name a factory, a Module class, or a module."
        )
    module = build(name, found, data.offers, options, "given")
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"model {name!r} returned a {type(module).__name__}; a factory must return a torch.nn.Module."
        )
    return Made(module, f"those that {name} gave (drawn with seed 0 where it draws them)")
