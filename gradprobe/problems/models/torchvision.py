"""``torchvision:NAME``: models of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradprobe.core.errors import UsageError
from gradprobe.core.optional import needs
from gradprobe.problems.data import Data
from gradprobe.problems.made import RANDOM, Made
from gradprobe.problems.models import register
from gradprobe.problems.models._images import check_name, sized
from gradprobe.problems.objects import one_line


@register(
    "torchvision",
    summary="torchvision:NAME: a model of torchvision, such as torchvision:resnet18; 3 channels",
)
def torchvision(name: str, data: Data, options: Mapping[str, Any]) -> Made:
    """A model of torchvision; random weights unless ``weights=DEFAULT`` (or another name) is given.

    ``num_classes`` follows the data where neither it nor weights are given. torchvision's classifiers read three
    channels: grey pictures are repeated.

    Args:
        name: Its name in torchvision.
        data: What the model is for.
        options: Arguments of ``torchvision.models.get_model``.

    Raises:
        UsageError: torchvision is not installed, knows no such model, or cannot make it.
    """
    models = needs("torchvision", extra="torchvision", what=f"model 'torchvision:{name}'").models
    check_name("torchvision", name, models.list_models())
    options = dict(options)
    if options.get("weights") is None and "num_classes" not in options and data.classes is not None:
        options["num_classes"] = data.classes
    try:
        module = models.get_model(name, **options)
    except Exception as error:
        raise UsageError(f"torchvision cannot make {name!r}: {one_line(error)}.") from error
    wish = options.get("weights")
    weights = RANDOM if wish is None else f"torchvision's {wish} of {name}"
    facts = {} if wish is None else {"pretrained": f"{name} {wish}"}
    return Made(module, weights, adapt=lambda d: sized(d, 3, None), facts=facts)
