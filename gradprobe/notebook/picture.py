"""The similarity panel as a picture on which a range of copies can be marked without drawing it again."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import Image

from gradprobe import plots
from gradprobe.core.markup import text

DPI = 180
"""Twice the dots of the size at which it is shown, so that it is crisp on fine screens."""

FADE = 0.62
"""How far towards white what lies outside the range is taken."""


class Picture:
    """The panel of one layer, or of the whole model.

    Args:
        ds: Results of one run.
        layer: Which layer; None: the whole model.
        methods: Labels of estimators.
        reference: What they are held against.
        width: In inches.
    """

    def __init__(
        self, ds: xr.Dataset, layer: str | None, methods: Sequence[str], reference: str, width: float = 4.6
    ) -> None:
        figure = plots.similarity(
            ds,
            layers=[] if layer is None else [layer],
            model=layer is None,
            estimators=list(methods),
            reference=reference,
            width=width,
        )
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
        self._pixels = np.asarray(Image.open(stream).convert("RGB"))
        self._axes = figure.axes[0]
        self.caption: str = figure.gradprobe_caption

    def marked(self, first: float, last: float) -> npt.NDArray[np.uint8]:
        """Pixels ``[height, width, 3]``: what lies outside the range is faded, and its ends are lines."""
        out = np.array(self._pixels)
        high, wide = out.shape[:2]
        box = self._axes.get_position()
        left, right = round(box.x0 * wide), round(box.x1 * wide)
        top, bottom = round((1 - box.y1) * high), round((1 - box.y0) * high)
        low, up = sorted(int(np.clip(self._column(n), left, right)) for n in (first, last))
        for start, stop in ((left, low), (up, right)):
            pale = out[top:bottom, start:stop]
            pale[:] = (pale + FADE * (255 - pale.astype(np.float32))).astype(np.uint8)
        for edge in (low, up):
            out[top:bottom, max(edge - 1, 0) : edge + 1] = 110
        return out

    def html(self, first: float, last: float, alt: str) -> str:
        """The picture with a range marked, as HTML.

        Args:
            first: First number of copies.
            last: Last number of copies.
            alt: What it shows, for those who do not see it.
        """
        pixels = self.marked(first, last)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="png", compress_level=1)
        data = base64.b64encode(stream.getvalue()).decode()
        return (
            f'<img src="data:image/png;base64,{data}" alt="{text(alt)}" width="{pixels.shape[1] // 2}" '
            'style="max-width:100%;height:auto">'
        )

    def _column(self, copies: float) -> float:
        """Where a number of copies lies, in pixels from the left."""
        x = self._axes.transData.transform((copies, 0.0))[0]
        return float(x / self._axes.figure.bbox.width * self._pixels.shape[1])
