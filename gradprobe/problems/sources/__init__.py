"""Where data come from, by the word before the colon: each file registers ``(name, split, options) -> Data``."""

from gradprobe.problems import SOURCES

register = SOURCES.register
