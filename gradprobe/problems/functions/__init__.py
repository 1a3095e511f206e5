"""Test functions by name: each is a callable on points ``[..., d]`` whose facts are arguments of its decorator.

Facts: ``domain`` (low and high end of each coordinate; one pair serves all), ``minima`` (all global minima),
``value`` (there), ``local_minima`` (all other minima inside the domain; left out where they are many), ``start``
(where descents start by default) and ``source``. A function that takes any number of variables has the facts
for two.
"""

from gradprobe.problems import FUNCTIONS

register = FUNCTIONS.register
