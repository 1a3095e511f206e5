"""One sentence for each thing that cannot be served, and nothing printed."""

from __future__ import annotations

import math

import pytest
import torch

import gradprobe as gp
from gradprobe import UsageError
from gradprobe.estimators.perturbation import LR


def bowl(p):
    return (p**2).sum(-1)


DESCENTS = {
    "unknown function": (("beal",), {}, "Did you mean 'beale'"),
    "no function": ((3,), {}, "name or a callable"),
    "own function, no start": ((bowl,), {}, "needs start="),
    "outside": (("beale",), {"start": (9.0, 0.0)}, "outside the domain"),
    "coordinates": (("beale",), {"start": (1.0, 0.0, 0.0)}, "2 variables"),
    "ragged": (("beale",), {"start": [(1.0,), (1.0, 2.0)]}, "start has 1 coordinates"),
    "nan": (("beale",), {"start": (math.nan, 0.0)}, "finite"),
    "inf": ((lambda p: torch.exp(-p).sum(),), {"start": [(1.0, 1.0), (math.inf, 0.0)]}, "finite"),
    "words": (("beale",), {"start": "here"}, "start must be"),
    "not finite there": ((lambda x, y: torch.log(x) + y,), {"start": (-1.0, 0.0)}, "nan at the start"),
    "grid": (("beale",), {"start": 400}, "too many"),
    "grid of nobody's": ((gp.Function("f", bowl, (1.0, 1.0)),), {"start": 3}, "needs domain="),
    "copies": (("beale",), {"copies": 0}, "copies must be"),
    "sigma": (("beale",), {"sigma": -1}, "sigma must be"),
    "sigma twice": (("beale", LR(sigma=0.1)), {"sigma": 0.2}, "give sigma to"),
    "sigma of no layer": (("beale", "lr(sigma={'*': 1, 'typo': 2})"), {}, "layer in sigma"),
    "seeds": (("beale",), {"seeds": 0}, "seeds must be"),
    "seed twice": (("beale",), {"seeds": [1, 1]}, "twice"),
    "lr": (("beale",), {"lr": 0}, "lr must be"),
    "lr nan": (("beale",), {"lr": math.nan}, "lr must be"),
    "lr word": (("beale",), {"lr": "tune"}, "or 'tuned', not 'tune'"),
    "lr missing": (("beale", "bp,lr"), {"lr": {"bp": 1e-3}}, "says nothing of 'lr'"),
    "lr unknown": (("beale", "bp"), {"lr": {"bp": 1e-3, "al": 1}}, "unknown estimator in lr"),
    "steps": (("beale",), {"steps": 0}, "steps must be"),
    "clip": (("beale",), {"clip": 0}, "clip must be"),
    "clip of length 1": (("beale",), {"clip": 0.1, "step": "normalised"}, "clip has no meaning"),
    "decay": (("beale",), {"decay": -1}, "decay must be"),
    "every": (("beale",), {"every": 0}, "every must be"),
    "root": (("beale",), {"root_seed": -1}, "root_seed must be"),
    "optimizer": (("beale",), {"optimizer": "sdg"}, "Did you mean 'sgd'"),
    "optimizer option": (("beale",), {"optimizer": "sgd(speed=3)"}, "does not work here"),
    "optimizer lr": (("beale",), {"optimizer": "sgd(lr=3)"}, "as lr="),
    "optimizer none": (("beale",), {"optimizer": 3}, "optimizer must be"),
    "lbfgs": (("beale",), {"optimizer": "lbfgs"}, "losses along the way"),
    "rates": (("beale",), {"rates": [1e-3], "lr": 0.1}, "lr='tuned'"),
    "one rate": (("beale",), {"rates": 0.1}, "rates must be"),
    "criterion without tuning": (("beale",), {"criterion": "steps", "lr": 0.1}, "lr='tuned'"),
    "start twice": (("beale",), {"start": [(1.0, 1.0), (1.0, 1.0)]}, "given twice"),
    "copies of another galaxy": (("beale",), {"copies": 10**9, "lr": 0.1}, "copies=1,000,000,000"),
    "minima of different value": (("beale",), {"minima": [(3, 0.5), (0, 0)]}, "must all be global"),
    "odd pairs": (("beale", "lr(antithetic=True)"), {"copies": 15}, "block of 15"),
    "bp without gradients": (
        (lambda x, y: (x.detach() - 1) ** 2 + y**2, "bp"),
        {"start": (0.0, 1.0)},
        "math, numpy",
    ),
    "no rates": (("beale",), {"rates": [], "lr": "tuned"}, "rates is empty"),
    "bad rate": (("beale",), {"rates": [-1.0], "lr": "tuned"}, "each of the rates"),
    "tuning seeds": (("beale",), {"tuning_seeds": 0, "lr": "tuned"}, "tuning_seeds must be"),
    "steps to nowhere": ((bowl,), {"start": (1.0, 1.0), "lr": "tuned", "criterion": "steps"}, "minima="),
    "project": ((bowl,), {"start": (1.0, 1.0), "bounds": "project"}, "needs domain="),
    "estimator": (("beale", "lrr"), {}, "unknown estimator"),
    "estimator twice": (("beale", "lr,lr"), {}, "given twice"),
    "criterion": (("beale",), {"criterion": "los"}, "unknown criterion"),
    "step": (("beale",), {"step": "unit"}, "unknown step"),
    "bounds": (("beale",), {"bounds": "projekt"}, "Did you mean 'project'"),
    "a float": ((lambda x, y: 1.0,), {"start": (1.0, 1.0)}, "must return a tensor"),
    "a vector": ((lambda p: p,), {"start": (1.0, 1.0)}, "one number"),
    "arguments": ((lambda x, y, z: x,), {"start": (1.0, 1.0)}, "3 arguments"),
    "domain": (("beale",), {"domain": [(1, 0), (0, 1)]}, "low and a high"),
    "pairs": (("beale", "lr(antithetic=True)"), {"copies": 3}, "use an even number"),
    "memory": (("beale",), {"steps": 10**8, "seeds": 10**5}, "every="),
}

FIELDS = {
    "three variables": ((lambda x, y, z: x * y * z,), {"start": (1.0, 1.0, 1.0)}, "two variables"),
    "no domain": ((bowl,), {"start": (1.0, 1.0)}, "needs domain="),
    "points": (("beale",), {"points": 2}, "points must be"),
    "copies": (("beale",), {"copies": 0}, "copies must be"),
    "sigma": (("beale",), {"sigma": 0}, "sigma must be"),
    "sigma twice": (("beale", LR(sigma=0.1)), {"sigma": 0.2}, "give sigma to"),
    "estimator": (("beale", "lrr"), {}, "unknown estimator"),
    "root": (("beale",), {"root_seed": -1}, "root_seed must be"),
}


@pytest.mark.parametrize(
    ("call", "case"),
    [(gp.descend, c) for c in DESCENTS.values()] + [(gp.field, c) for c in FIELDS.values()],
    ids=[*DESCENTS, *(f"field: {name}" for name in FIELDS)],
)
def test_refused_in_one_sentence(call, case, capsys):
    arguments, options, says = case
    with pytest.raises(UsageError) as error:
        call(*arguments, **({"steps": 3, "seeds": 2} | options if call is gp.descend else options))
    text = str(error.value)
    assert says in text
    assert "\n" not in text
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize(
    "start", [torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0]]), [torch.ones(2), torch.zeros(2)]]
)
def test_starts_may_be_tensors(start):
    path = gp.descend(bowl, "bp", start=start, steps=1, seeds=1)
    assert (
        path.start_position.values.reshape(-1, 2).tolist()
        == torch.stack([*torch.atleast_2d(start)] if isinstance(start, torch.Tensor) else start).tolist()
    )


def test_an_instance_brings_its_sigma():
    for path in (
        gp.descend("beale", LR(sigma=0.1), steps=1, seeds=1),
        gp.field("booth", LR(sigma=0.1), points=3).isel(field=[1]),
    ):
        assert path.sigma.values.tolist() == [0.1]
