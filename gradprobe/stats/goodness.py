"""Are the blocks of a run what the alignment law takes them for?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import _contrasts as tests
from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._holm import holm
from gradprobe.stats._intervals import LEAST_SEEDS, Array, mean_se
from gradprobe.stats._law import cross, per_seed
from gradprobe.stats._moments import Moments, moments

LEAST_BLOCKS = 5
"""Fewest blocks for which the tests cry wolf as rarely as stated."""

ROUNDING = 1e-14
"""Variance of a copy relative to its mean's square below which blocks differ by rounding only."""

FINDINGS = {
    "drift_dot": "the component along the reference drifts over the run",
    "drift_norm": "the length of single blocks drifts over the run",
    "serial_blocks": "blocks of a run depend on the blocks before them",
    "serial_dot": "neighbouring blocks have components along the reference that depend on each other",
    "seeds_dot": "seeds differ more, or less, than the blocks within them",
    "shared": "the blocks of a seed have noise in common that other seeds do not have",
}
NAMES = tuple(FINDINGS)
WEIGHTS = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 5.0])
"""Half of the false alarms go to the last test: what it looks for distorts most, and hides from the others."""


@register(
    "goodness_of_fit", summary="are blocks independent and alike, as the alignment law assumes: six tests"
)
def goodness_of_fit(ds: xr.Dataset, over: Over = "layer", reference: str = "bp") -> xr.Dataset:
    """Test the law's assumption: blocks of a seed are independent and have one mean, and seeds are alike.

    Contrasts of single blocks B_k, which prefix moments hold (a_k = <B_k, g>, c_k = <B_1 + ... + B_{k-1}, B_k>).
    Each has mean 0 under independent blocks whatever their distribution; per seed, then Student's t over seeds:

    ============== =========================================================================================
    drift_dot      sum (k - mean k) a_k: the gain changes over the run
    drift_norm     sum (k - mean k) |B_k|^2: the noise changes over the run
    serial_blocks  intercept of c_k against k - 1: neighbouring blocks depend on each other
    serial_dot     products of neighbouring a_k - mean a, over their variance
    seeds_dot      K var_s(mean a) / mean_s(var a), an F test on both sides; not with a noisy reference, whose
                   own noise differs between seeds
    shared         mean |mu|^2 within seeds minus that of the products of different seeds, one-sided: noise
                   common to all blocks of a seed, as a reused stream gives. It looks like bias, and nothing
                   else here sees it. Needs ``seed_product``.
    ============== =========================================================================================

    ``p`` is the smallest p value over its test's share of the false alarms (Bonferroni; half of them go to
    ``shared``, or all to the others where it cannot be made), ``flagged`` p below 0.05. Over many layers and methods
    some are flagged by chance: ``p_all`` is p corrected by Holm's method for all cells of this result.

    Measured (``analyses/dependent_blocks.py``, 4,000 runs for each number, 3 x 20, 5 x 20, 10 x 20, 5 x 5 seeds and
    blocks, Gaussian noise in 5 to 100 directions and t3, kappa/N from 0.1 to 10): false alarms 3.8 to 5.4 % by the
    moments, 2.5 to 5.3 % with products. Found at 5 x 20, by the moments / with products: blocks repeated twice
    100 / 100 %, AR(1) of 0.3 51 to 94 / 100, of 0.1 9 to 22 / 49 to 53, noise that grows by 20 % 83 to 98 / 66 to 92,
    a gain that falls by half 100, 23, 6 / 99, 15, 4 (kappa/N = 0.1, 1, 10), 10 % of noise common to a seed 33 / 100,
    2 % of it 7 / 88 (100 directions; 100 % with 10 seeds). What is not found is not proved absent.

    Source: alignment law, sections 4 and 6; Holm 1979.

    Args:
        ds: Results with every block: copies that were left out cannot be tested.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers as in ``alignment``.
        reference: ``bp`` (default), or another name along ``ds.reference``.

    Returns:
        Dataset over (estimator, parameter | layer | group): ``p_value`` (with dim ``test``; NaN where a test
        cannot be made), ``p``, ``p_all``, ``flagged``, ``state`` ("tested", "too few seeds": below 3, "too few
        blocks": below 5, "no noise", "refused" or "missing") and ``finding``, one line in words.

    Raises:
        UsageError: A name is unknown, or blocks are left out between the first and the last.
    """
    m = moments(ds, over, reference)
    if m.copies.size and not np.array_equal(m.copies, m.block * np.arange(1, m.copies.size + 1)):
        raise UsageError(
            f"goodness_of_fit needs every block of {m.block} copies from the first on, and some are left out; "
            "give it the whole run."
        )
    values = _p_values(m)
    state = _states(m, values)
    values = np.where((state == "tested")[..., None], values, np.nan)
    p, which = tests.bonferroni(values, WEIGHTS)
    flagged = p < 0.05
    out = xr.Dataset()
    out["p_value"] = m.label(values, "test").assign_coords(test=list(NAMES))
    out["p"], out["p_all"] = m.label(p), m.label(holm(p))
    out["flagged"], out["state"] = m.label(flagged), m.label(state)
    said = np.where(
        flagged, np.array(list(FINDINGS.values()))[which], "no sign of dependent or unlike blocks"
    )
    out["finding"] = m.label(np.where(state == "tested", said, state))
    out.attrs = m.facts | {"level": 0.05}
    return out


def _p_values(m: Moments) -> Array:
    """``[estimator, part, test]``; NaN where a test cannot be made. Cells that end at the same copies together."""
    last = np.where(m.stochastic[:, None] & m.served, m.last(), -1)
    found = np.full([*last.shape, len(NAMES)], np.nan)
    for index in np.unique(last[last >= LEAST_BLOCKS - 1]):
        cells = last == index
        dot, sqnorm, per_block = (
            getattr(m, name)[cells][..., : index + 1] for name in ("dot", "sqnorm", "block_sqnorm")
        )
        blocks = tests.single_blocks(dot, sqnorm, per_block)
        x, t = per_seed(dot[..., -1], sqnorm[..., -1], per_block[..., -1], np.array(index + 1.0), m.block)[1:]
        kept = np.isfinite(x)
        there = cross(m.products[cells], sqnorm[..., -1], kept)[1]
        products = np.where(there[:, None, None], m.products[cells], np.nan)
        p = {
            "drift_dot": tests.p_two_sided(tests.drift(blocks.along)),
            "drift_norm": tests.p_two_sided(tests.drift(blocks.square)),
            "serial_blocks": tests.p_two_sided(tests.intercept(blocks.next)),
            "serial_dot": tests.p_two_sided(tests.serial(blocks.along)),
            "seeds_dot": np.where(m.noisy[cells], np.nan, tests.p_same_mean(blocks.along)),
            "shared": tests.p_shared(products, t / (m.block * (index + 1)), kept),
        }
        noise = mean_se(t)[0] > ROUNDING * np.abs(mean_se(x)[0])
        found[cells] = np.where(noise[:, None], np.stack([p[name] for name in NAMES], -1), np.nan)
    return found


def _states(m: Moments, values: Array) -> npt.NDArray[np.str_]:
    """State of every cell, ``[estimator, part]``."""
    last = m.last()
    seeds = np.isfinite(m.at("dot", last) + m.at("sqnorm", last) + m.at("block_sqnorm", last)).sum(-1)
    still = ~np.broadcast_to(m.stochastic[:, None], last.shape)
    return np.select(
        [
            ~m.served,
            seeds == 0,
            still,
            last < LEAST_BLOCKS - 1,
            seeds < LEAST_SEEDS,
            ~np.isfinite(values).any(-1),
        ],
        ["refused", "missing", "no noise", "too few blocks", "too few seeds", "no noise"],
        default="tested",
    )
