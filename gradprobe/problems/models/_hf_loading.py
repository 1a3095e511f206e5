"""Whether all of a transformers model was in its files, and what must be said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradprobe.core.errors import UsageError


def loading_notes(name: str, module: Any, info: Mapping[str, Any]) -> tuple[str, ...]:
    """What loading has left new, and what it has left out; only a head (or a pooler before it) may be new.

    Raises:
        UsageError: Nothing was loaded, something failed, or weights behind the head are not in the files.
    """
    if info.get("error_msgs"):
        raise UsageError(
            f"the weights of model 'hf:{name}' cannot be loaded: {' '.join(info['error_msgs'])[:300]}."
        )
    start = getattr(module, "base_model_prefix", "")

    def inner(key: str) -> bool:
        return bool(start) and key.startswith(f"{start}.") and not key.startswith(f"{start}.pooler.")

    shapes = sorted((str(key), list(have), list(want)) for key, have, want in info.get("mismatched_keys", ()))
    for key, have, want in shapes:
        if (
            want[:1] != [module.config.num_labels] or have[1:] != want[1:] or inner(key)
        ):  # more than a head for other classes
            raise UsageError(
                f"the weights of model 'hf:{name}' do not fit: {key!r} is {have} in the files and {want} in the "
                "model."
            )
    other = [key for key, _, _ in shapes]
    new = sorted({*map(str, info.get("missing_keys", ())), *other})
    left = sorted(map(str, info.get("unexpected_keys", ())))
    if len(new) >= len(dict(module.named_parameters())):
        raise UsageError(
            f"no weight in the files of model 'hf:{name}' fits it; choose another task= or another folder."
        )
    lacking = [key for key in new if inner(key)]
    if lacking:
        raise UsageError(
            f"the files of model 'hf:{name}' lack {len(lacking)} of its weights, and not only a head's: "
            f"{_some(lacking)}; fetch all of them."
        )
    notes = []
    if new:
        why = "of another shape in" if other else "not in"
        notes.append(
            f"New in model hf:{name}, with random values (seed 0), because {why} its files: {_some(new)}."
        )
    if left:
        notes.append(f"Not used of the files of model hf:{name}: {_some(left)}.")
    return tuple(notes)


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "")
