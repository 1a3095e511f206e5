"""Running moments of directions against references; memory does not grow with copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

Directions = Mapping[str, torch.Tensor]


class Moments:
    """``<g_n, g>``, ``|g_n|^2`` and the running mean of ``|B_k|^2`` at every block boundary, in float64.

    Args:
        parameters: Names of the P parameters.
        references: Reference name -> direction; held in float64.
    """

    def __init__(self, parameters: Sequence[str], references: Mapping[str, Directions]) -> None:
        self.parameters = list(parameters)
        self.references = {
            name: {p: g[p].double() for p in self.parameters} for name, g in references.items()
        }
        self._sums: dict[str, torch.Tensor] = {}
        self._block_squares = np.zeros(len(self.parameters))
        self._blocks = 0
        self._rows: dict[str, list[np.ndarray]] = {"dot": [], "sqnorm": [], "block_sqnorm": []}

    def add(self, block: Directions) -> None:
        """Add the mean direction of the next block."""
        self._blocks += 1
        k = self._blocks
        for i, p in enumerate(self.parameters):
            b = block[p].detach().double()
            self._block_squares[i] += float((b * b).sum())
            self._sums[p] = self._sums[p] + b if p in self._sums else b.clone()
        sums = [self._sums[p] for p in self.parameters]
        self._rows["sqnorm"].append(np.array([float((s * s).sum()) / k**2 for s in sums]))
        self._rows["block_sqnorm"].append(self._block_squares / k)
        dots = [
            [float((self._sums[p] * g[p]).sum()) / k for p in self.parameters]
            for g in self.references.values()
        ]
        self._rows["dot"].append(np.array(dots))

    def sums(self) -> np.ndarray:
        """Sum of the blocks so far ``[D]``, parameters in their order, flat."""
        return np.concatenate([self._sums[p].cpu().numpy().ravel() for p in self.parameters])

    def squares(self) -> np.ndarray:
        """Sum of |B_k|^2 so far ``[P]``."""
        return self._block_squares.copy()

    def resume(
        self,
        like: Directions,
        sums: np.ndarray,
        squares: np.ndarray,
        rows: Mapping[str, np.ndarray],
    ) -> None:
        """Take the state that another object of the same parameters and references gave.

        Args:
            like: Tensors of the shapes of the parameters, on the device of the blocks.
            sums: What :meth:`sums` gave.
            squares: What :meth:`squares` gave.
            rows: What :meth:`arrays` gave.
        """
        flat = torch.from_numpy(np.array(sums, dtype=np.float64))
        parts = flat.split([like[p].numel() for p in self.parameters])
        self._sums = {
            p: part.view(like[p].shape).to(like[p].device)
            for p, part in zip(self.parameters, parts, strict=True)
        }
        self._block_squares = np.array(squares, dtype=np.float64)
        self._blocks = rows["sqnorm"].shape[-1]
        self._rows = {name: [np.array(row) for row in np.moveaxis(rows[name], -1, 0)] for name in self._rows}

    def mean(self) -> dict[str, torch.Tensor]:
        """Mean of all blocks so far."""
        return {p: s / self._blocks for p, s in self._sums.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """``dot`` ``[reference, P, K]``, ``sqnorm`` and ``block_sqnorm`` ``[P, K]``."""
        return {name: np.stack(rows, axis=-1) for name, rows in self._rows.items()}
