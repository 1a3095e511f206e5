"""Data by name: each file registers a function ``(split) -> Data``."""

from gradprobe.problems import DATASETS

register = DATASETS.register
