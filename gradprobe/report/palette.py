"""Colours of methods on light and dark pages."""

from __future__ import annotations

import re

import xarray as xr

DARK_GROUND = "#1d2125"
"""Ground of figures on a dark page; as in page.css."""

LEAST = 4.0
"""Contrast with the dark ground that a method's colour is lightened to; WCAG asks 3 of graphics."""

INK = 10.0
"""That of black and greys: between light and dark they would be too quiet for a method."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def palette(ds: xr.Dataset) -> str:
    """Rules of style: each method's colour, lighter where a dark page would swallow it, how it is hidden.

    Bands and laws of a curve that equals another are seen once the other is hidden.
    """
    colors = colors_of(ds)
    light = "".join(f".m{i}{{--c:{c}}}" for i, c in enumerate(colors))
    dark = "".join(f".m{i}{{--c:{seen(c)}}}" for i, c in enumerate(colors) if seen(c) != c)
    places = range(len(colors))
    spare = "".join(f".t{i}{{display:none}}.off-m{i} .t{i}{{display:inline}}" for i in places)
    hidden = "".join(f".off-m{i} .m{i}:not(.choice){{display:none}}" for i in places)
    return f"\n{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n{spare}\n{hidden}\n"


def colors_of(ds: xr.Dataset) -> list[str]:
    """Each method's colour, "#rrggbb"; grey where the run holds something else."""
    found = [str(c) for c in ds["color"].values]
    return [c if _COLOR.fullmatch(c) else "#808080" for c in found]


def seen(color: str, ground: str = DARK_GROUND) -> str:
    """The colour, mixed with as much white as it needs to be seen on the ground."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    least = INK if max(parts) - min(parts) < 16 else LEAST
    for white in range(0, 101, 5):
        mixed = "#" + "".join(f"{round(p + (255 - p) * white / 100):02x}" for p in parts)
        if contrast(mixed, ground) >= least:
            return color if white == 0 else mixed
    return "#ffffff"


def contrast(one: str, other: str) -> float:
    """Ratio of contrast of two colours, 1 to 21.

    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    a, b = sorted((_luminance(one), _luminance(other)))
    return (b + 0.05) / (a + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
