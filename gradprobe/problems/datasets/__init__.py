"""Data by name: each file registers a function ``(split) -> Data``.

``offers=(...)`` beside the summary names what a network may ask of the data (see ``Data.offers``), so that a
message can say which data fit without loading them.
"""

from gradprobe.problems import DATASETS

register = DATASETS.register
