"""Which copies one call of an engine runs: parts of blocks, or several blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradprobe.core.streams import Block


@dataclass(frozen=True)
class Part:
    """Some copies of a block, or all of them.

    Attributes:
        block: Index of the block.
        drawn: Which of the block's independently drawn copies, consecutive.
        paired: Whether the antithetic partners of all of these follow them.
    """

    block: int
    drawn: range
    paired: bool = False

    @property
    def copies(self) -> int:
        """How many copies it has."""
        return len(self.drawn) * (2 if self.paired else 1)


def whole(block: Block, paired: bool) -> Part:
    """All copies of a block."""
    return Part(block.index, range(block.copies // 2 if paired else block.copies), paired)


def calls(blocks: Sequence[int], copies: int, paired: bool, most: int) -> Iterator[list[Part]]:
    """Share out blocks over calls of an engine.

    Args:
        blocks: Indices of the blocks.
        copies: Copies in a block.
        paired: Antithetic pairs, which stay together.
        most: Copies in one call at most (a single copy, or pair, is not divided).

    Yields:
        The parts of each call: several whole blocks, or consecutive copies of one.
    """
    together = most // copies
    if together:
        for first in range(0, len(blocks), together):
            yield [whole(Block(i, copies), paired) for i in blocks[first : first + together]]
        return
    drawn = copies // 2 if paired else copies
    step = max(most // 2 if paired else most, 1)
    for block in blocks:
        for start in range(0, drawn, step):
            yield [Part(block, range(start, min(start + step, drawn)), paired)]
