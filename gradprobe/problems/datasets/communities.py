"""A graph of communities: the labels are in the edges more than in the nodes."""

from __future__ import annotations

import numpy as np
import torch

from gradprobe.core.errors import unknown
from gradprobe.problems.data import Data
from gradprobe.problems.datasets import register

CLASSES, SIZE, FEATURES = 4, 30, 8
"""Communities, nodes in each, features of a node."""

INSIDE, OUTSIDE = 0.2, 0.02
"""Chance of an edge between two nodes of one community, and of two."""

SIGNAL = 0.7
"""Length of the mean of a community's features; each feature has standard deviation 1 besides."""

LABELLED = 10
"""Training nodes in each community; the others are the test split."""


@register(
    "communities",
    summary="a made-up graph of 120 nodes in four communities (planted partition) with noisy features",
    offers=("features", "classes"),
)
def communities(split: str = "train") -> Data:
    """The graph; the split says which nodes' losses count.

    Inputs are ``(x, edge_index)``: features ``[120, 8]`` and edges ``[2, E]``, each in both directions. The first
    four features of a node are normal around 0.7 times the unit vector of its community, the other four are noise;
    nodes are in random order. Both splits hold the whole graph and all targets: the weights are 1/40 for the
    training nodes (ten of each community) and 0 elsewhere, or 1/80 for the others and 0 for those.

    Args:
        split: ``"train"`` or ``"test"``.

    Raises:
        UsageError: Another split.
    """
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    rng = np.random.Generator(np.random.PCG64(2024))
    labels = rng.permutation(np.repeat(np.arange(CLASSES), SIZE))
    features = rng.standard_normal((len(labels), FEATURES)) + SIGNAL * np.eye(FEATURES)[labels]
    chance = np.where(labels[:, None] == labels, INSIDE, OUTSIDE)
    upper = np.triu(rng.random(chance.shape) < chance, 1)
    edges = np.stack(np.nonzero(upper | upper.T))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(CLASSES):
        chosen[rng.permutation(np.nonzero(labels == label)[0])[:LABELLED]] = True
    chosen = chosen if split == "train" else ~chosen
    inputs = (torch.tensor(features, dtype=torch.float32), torch.tensor(edges))
    weights = torch.tensor(chosen / chosen.sum())
    return Data(inputs, torch.tensor(labels), CLASSES, {"features": FEATURES}, whole=True, weights=weights)
