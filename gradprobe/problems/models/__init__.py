"""Where models come from, by the word before the colon: each file registers ``(name, data, options) -> Made``."""

from gradprobe.problems import MODELS

register = MODELS.register
