"""``torchvision:NAME``: models of torchvision."""

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


@register(
    "torchvision",
    summary="torchvision:NAME: a model of torchvision, such as torchvision:resnet18; 3 channels",
)
def torchvision(name: str, data: Data, options: Mapping[str, Any]) -> Made:
    """A model of torchvision; random weights unless ``weights=DEFAULT`` (or another name) is given.

    ``num_classes`` follows the data where neither it nor weights are given. torchvision's classifiers read three
    channels: grey pictures are repeated. For pretrained weights, pictures in [0, 1] are normalised as their
    transforms do; of other data it is only said. Nothing is scaled or cropped.

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
    if wish is None:
        return Made(module, weights, adapt=lambda d: sized(d, 3, None))
    norm = _norm(models, name, wish)
    notes = expected(f"torchvision:{name}", data, norm)
    facts = {"pretrained": f"{name} {wish}"}
    return Made(module, weights, adapt=lambda d: sized(d, 3, None, norm), facts=facts, notes=notes)


def _norm(models: Any, name: str, wish: Any) -> Norm | None:
    """What the transforms that belong to the weights normalise by, if they do."""
    try:
        kind = models.get_model_weights(name)
        chosen = kind[wish.replace(f"{kind.__name__}.", "")] if isinstance(wish, str) else wish
        made = chosen.transforms()
        return tuple(made.mean), tuple(made.std)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # weights of segmentation, video, ... have others
        return None
