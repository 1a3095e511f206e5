"""Level 1: what is probed. A problem is a module, one batch and a loss; networks, data, checkpoints, functions."""

from __future__ import annotations

from gradprobe.core.registry import Registry

NETWORKS = Registry("model", "gradprobe.problems.networks")
DATASETS = Registry("data", "gradprobe.problems.datasets")
FUNCTIONS = Registry("function", "gradprobe.problems.functions")
MODELS = Registry("source of models", "gradprobe.problems.models")
SOURCES = Registry("source of data", "gradprobe.problems.sources")
