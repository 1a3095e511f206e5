"""``timm:NAME``: image models of the timm library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.core.optional import needs
from gradprobe.problems.data import Data
from gradprobe.problems.made import RANDOM, Made
from gradprobe.problems.models import register
from gradprobe.problems.models._images import Norm, check_name, expected, sized
from gradprobe.problems.objects import one_line


@register("timm", summary="timm:NAME: an image model of the timm library, such as timm:resnet18")
def timm(name: str, data: Data, options: Mapping[str, Any]) -> Made:
    """A model of timm; random weights unless ``pretrained=true``.

    ``num_classes`` and ``in_chans`` follow the data where they are not given. For pretrained weights, pictures in
    [0, 1] are normalised as the weights expect; of other data it is only said.

    Args:
        name: Its name in timm.
        data: What the model is for.
        options: Arguments of ``timm.create_model``.

    Raises:
        UsageError: timm is not installed, knows no such model, or cannot make it.
    """
    library = needs("timm", extra="timm", what=f"model 'timm:{name}'")
    architecture = name.partition(".")[0]  # after the dot: which pretrained weights
    check_name("timm", architecture, library.list_models())
    given = {"num_classes": data.classes, "in_chans": (data.offers.get("input_shape") or (None,))[0]}
    options = {k: v for k, v in given.items() if v is not None} | dict(options)
    try:
        module = library.create_model(name, **options)
    except Exception as error:
        raise UsageError(f"timm cannot make {name!r}: {one_line(error)}.") from error
    pretrained = bool(options.get("pretrained"))
    weights = f"timm's pretrained ones of {name}" if pretrained else RANDOM
    config = getattr(module, "pretrained_cfg", None) or {}
    entries = config if isinstance(config, Mapping) else vars(config)  # a dataclass in some versions of timm
    facts = {"pretrained": str(entries.get("hf_hub_id") or entries.get("url") or name)}
    if not pretrained:
        return Made(module, weights)
    norm = _norm(entries, options.get("in_chans", 3))
    notes = expected(f"timm:{name}", data, norm)
    return Made(module, weights, lambda d: sized(d, None, None, norm), facts=facts, notes=notes)


def _norm(entries: Mapping[str, Any], channels: int) -> Norm | None:
    """What the weights expect; nothing is known of it for other than their own channels."""
    mean, std = entries.get("mean"), entries.get("std")
    return (tuple(mean), tuple(std)) if mean and std and len(mean) == len(std) == channels else None
