"""Every statistic is reachable by its public name, documented, and not shadowed by its own file."""

import pytest

from gradprobe import stats

PUBLIC = "accuracy alignment bands basins cosine cost coverage difference frontier predict progress".split()
PUBLIC += "stability stability_floor success".split()
PUBLIC += "against_sigma decompose theory".split()


def test_public_names_are_there():
    assert set(PUBLIC) <= set(stats.STATISTICS.names())


@pytest.mark.parametrize("name", stats.STATISTICS.names())
def test_a_name_is_its_function(name):
    function = stats.STATISTICS.get(name)
    entry = stats.STATISTICS.entry(name)
    assert getattr(stats, name) is function
    assert function.__name__ == name
    assert entry.module.rpartition(".")[2] != name
    assert entry.summary
    assert "\n" not in entry.summary
    for part in ("Args:", "Returns:", "Raises:"):
        assert part in function.__doc__
