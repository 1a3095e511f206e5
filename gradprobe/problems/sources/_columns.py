"""Which column of a table holds the inputs, and which the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradprobe.core.errors import UsageError, unknown

IMAGES = ("image", "img", "images", "pixel_values", "picture")
TEXTS = ("text", "sentence", "content", "review", "document", "sms", "tweet")
WORDS = ("tokens", "words")
OTHERS = ("inputs", "input", "features", "x")
LABELS = ("label", "labels", "target", "targets", "class", "category", "y")


def input_column(features: Mapping[str, Any], wish: str | None, target: str | None, name: str) -> str:
    """The column of the inputs: the user's, else one typed as image, else one of the usual names.

    Args:
        features: Type by column.
        wish: What the user says.
        target: The column of the targets, which it is not.
        name: Name of the data, for messages.

    Raises:
        UsageError: There is none, or there are several.
    """
    if wish is not None:
        return _checked(features, wish, name)
    rest = {c: f for c, f in features.items() if c != target}
    images = [c for c, f in rest.items() if type(f).__name__ == "Image"]
    if images:
        return _only(images, features, "input", name)
    for names in (IMAGES, TEXTS, WORDS, OTHERS):
        found = [c for c in rest if c.lower() in names]
        if found:
            return _only(found, features, "input", name)
    texts = [c for c, f in rest.items() if getattr(f, "dtype", None) in ("string", "large_string")]
    return _only(texts, features, "input", name)


def target_column(features: Mapping[str, Any], wish: str | None, name: str) -> str | None:
    """The column of the targets: the user's, else one of classes, else one of the usual names; None without.

    Raises:
        UsageError: The user's is not there, or there are several.
    """
    if wish is not None:
        return _checked(features, wish, name)
    named = [c for c in features if c.lower() in LABELS]
    classes = [c for c, f in features.items() if type(f).__name__ == "ClassLabel"]
    tags = [c for c in features if c.lower().endswith("_tags")]
    for found in (named, classes, tags):
        if found:
            return _only(found, features, "target", name)
    return None


def _checked(features: Mapping[str, Any], wish: str, name: str) -> str:
    if wish not in features:
        raise unknown(f"column of {name}", wish, features)
    return wish


def _only(found: Sequence[str], features: Mapping[str, Any], role: str, name: str) -> str:
    if len(found) == 1:
        return found[0]
    why = f"several columns of {name} may be" if found else f"no column of {name} is known as"
    raise UsageError(
        f"{why} the {role}; say which with the option {role}=COLUMN: the columns are {', '.join(features)}."
    )
