"""Test functions by name: each is a callable on points ``[..., d]`` whose facts are arguments of its decorator.

Facts: ``domain`` (low and high end of each coordinate), ``minima`` (all global minima), ``value`` (there),
``local_minima`` (other minima inside the domain, where they are known and few), ``start`` (where descents start
by default) and ``source``.
"""

from gradprobe.problems import FUNCTIONS

register = FUNCTIONS.register
