"""Sentences whose class is in the order of their words, and in nothing else."""

from __future__ import annotations

import numpy as np
import torch

from gradprobe.core.errors import unknown
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register

SIZES = {"train": 2000, "test": 500}
SHORTEST, LONGEST = 6, 10
FORMS, FILLERS = 3, 12
"""Words for each of the four roles, and words without one."""

VOCABULARY = 1 + 4 * FORMS + FILLERS


@register(
    "words",
    summary="2,500 made-up sentences of 6 to 10 words, four classes that only the order of words tells apart",
    offers=("vocabulary", "padding", "classes"),
)
def words(split: str = "train") -> Data:
    """One split of the sentences, as tokens ``[N, 10]``.

    Token 0 fills up at the end. Tokens 1 to 12 have a role, A, B, C or D, three words each; 13 to 24 are fillers.
    A sentence of 6 to 10 words holds one word of each role, fillers in the other places. Its class is
    ``2 [A comes before B] + [C comes before D]``. Words are drawn first, uniformly; then the class; then an order,
    uniformly among those of that class. So the class is independent of which words a sentence holds: a bag of
    words can do no better than chance (1/4).

    Args:
        split: ``"train"`` (2,000) or ``"test"`` (500 others).

    Raises:
        UsageError: Another split.
    """
    if split not in SIZES:
        raise unknown("split", split, SIZES)
    rng = np.random.Generator(np.random.PCG64([2024, list(SIZES).index(split)]))
    drawn = [_sentence(rng) for _ in range(SIZES[split])]
    tokens = torch.tensor(np.stack([sentence for sentence, _ in drawn]))
    targets = torch.tensor([kind for _, kind in drawn])
    return Data(tokens, targets, 4, {"vocabulary": VOCABULARY, "padding": 0})


def _sentence(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Tokens ``[10]`` and the class."""
    length = int(rng.integers(SHORTEST, LONGEST + 1))
    roles = 1 + FORMS * np.arange(4) + rng.integers(0, FORMS, 4)
    fillers = 1 + 4 * FORMS + rng.integers(0, FILLERS, length - 4)
    kind = int(rng.integers(4))
    places = rng.permutation(length)[:4]
    # in each pair the order of the class
    first, second = (
        sorted(pair, reverse=not wanted) for pair, wanted in ((places[:2], kind // 2), (places[2:], kind % 2))
    )
    sentence = np.zeros(LONGEST, dtype=np.int64)
    taken = [*first, *second]
    sentence[taken] = roles
    sentence[np.setdiff1d(np.arange(length), taken)] = fillers
    return sentence, kind
