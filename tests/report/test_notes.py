"""What a report says of the law: runs that are too small, and blocks that are not what it assumes."""

import numpy as np

from gradprobe.report.tables import notes
from tests.synthetic import LAYERS, Truth, make_run, make_world

TRUTH = {"lr": Truth(kappa=20.0), "es": Truth(kappa=30.0), "bp": Truth(kappa=0.0, stochastic=False)}


def said(ds, *words):
    return [note for note in notes(ds) if any(word in note for word in words)]


def run(seeds=5, blocks=20, spoil=None):
    rng = np.random.default_rng(0)
    world = make_world(rng, LAYERS, TRUTH, seeds, blocks, block=16)
    for (label, _), drawn in world.blocks.items():
        if spoil and label == "es":
            drawn["fc"] = spoil(drawn["fc"])
    return make_run(rng, estimators=TRUTH, seeds=seeds, blocks=blocks, world=world, products=True)


def test_a_sound_run_of_full_size_needs_no_sentence():
    assert said(run(), "too little", "do not hold") == []


def test_small_runs_have_too_little_to_say():
    for ds in (run(seeds=3), run(blocks=10)):
        (note,) = said(ds, "too little")
        assert note.startswith("lr, es: fewer than 5 seeds or 20 blocks")


def test_dependent_blocks_are_named_once_with_method_and_layer():
    ds = run(spoil=lambda blocks: np.repeat(blocks[::2], 2, axis=0))
    (note,) = said(ds, "do not hold")
    assert note.startswith("es, fc: ")
    assert said(ds.isel(copies=slice(None, None, 2)), "do not hold") == []


def test_one_block_says_nothing_of_the_law():
    assert said(run(blocks=1), "too little", "do not hold") == []
