from __future__ import annotations

import pytest

from gradprobe.core.errors import UsageError, unknown
from gradprobe.core.spec import Spec, canonical_json, digest, label, parse, split


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("lr", {}),
        (" lr() ", {}),
        ("lr(sigma=0.1)", {"sigma": 0.1}),
        ("lr(noise=rademacher, sigma=1e-3)", {"noise": "rademacher", "sigma": 1e-3}),
        ("lr(antithetic=True)", {"antithetic": True}),
        ("lr(sigma={'conv*': 0.1, 'fc': 0.01})", {"sigma": {"conv*": 0.1, "fc": 0.01}}),
        ("lr(encode='sign-noise')", {"encode": "sign-noise"}),
        ("lr(noise=low-rank(rank=4))", {"noise": "low-rank(rank=4)"}),
        ("lr(noise='low-rank(rank=4)')", {"noise": "low-rank(rank=4)"}),
        ("lr(a=b(y=c-d(z=1.0), x=2), sigma=0.1)", {"a": "b(x=2, y=c-d(z=1))", "sigma": 0.1}),
        ("lr(noise=a-b-c( y = 2, x = 1.0 ))", {"noise": "a-b-c(x=1, y=2)"}),
    ],
)
def test_parse(text: str, options: dict) -> None:
    assert parse(text) == Spec("lr", options)


@pytest.mark.parametrize(
    "text",
    ["lr(", "lr(0.1)", "lr(sigma=)", "lr(sigma=0.1))", "lr(sigma=f(2))", "lr(**{})", "lr(a=1, a=2)"]
    + ["lr(a=f(b=1, b=2))", "lr(a=f(**{}))", "lr(a=f(b=1)(c=2))", "lr(a=f.g(b=1))", "lr(a=b-1)", "lr(a=b+c)"]
    + ["sign(lr, es)", "sign('')", "sign(a=lr(0.1))", "sign(lr[0])", "sign(1-2)", "sign(*lr)"],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="write it as name"):
        parse(text)


def test_unquoted_words_with_a_hyphen_are_words() -> None:
    assert parse("alr(encode=sign-noise)").options == {"encode": "sign-noise"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sign(fa)", Spec("sign", {}, "fa")),
        ("sign(fg-w, copies=5)", Spec("sign", {"copies": 5}, "fg-w")),
        (
            "sign( lr(sigma = 0.10, noise=laplace), copies=100)",
            ("lr(noise=laplace, sigma=0.1)", {"copies": 100}),
        ),
        ("sign(es-rank(antithetic=True))", ("es-rank(antithetic=True)", {})),
        ("sign(sign(lr, copies=2), copies=3)", ("sign(lr, copies=2)", {"copies": 3})),
        ("sign('runs/plan.json')", ("runs/plan.json", {})),
        (
            "sign(planned(layers={'a': ('lr(sigma=0.1)', 2, 1.0)}))",
            ("planned(layers={'a': ('lr(sigma=0.1)', 2, 1.0)})", {}),
        ),
    ],
)
def test_a_method_stands_first_without_a_name(text: str, wanted: Spec | tuple) -> None:
    wanted = wanted if isinstance(wanted, Spec) else Spec("sign", wanted[1], wanted[0])
    assert parse(text) == wanted
    assert parse(str(wanted)) == wanted
    assert str(parse(str(wanted))) == str(wanted)


def test_words_within_words_are_read_in_time() -> None:
    text = "lr"
    for depth in range(60):
        text = f"sign({text}, copies={depth})"
    assert str(parse(text)) == text
    with pytest.raises(UsageError):
        parse("sign" + "(" * 5000)


def test_label_is_canonical_and_parses_back() -> None:
    options = {
        "sigma": {"fc": 0.01, "conv*": 0.1},
        "noise": "laplace",
        "encode": "sign-noise",
        "antithetic": True,
    }
    text = label("lr", options)
    assert text == label("lr", dict(reversed(options.items())))
    assert parse(text) == Spec("lr", options)
    assert label("lr", {"sigma": 1e-3}) == label("lr", {"sigma": 0.001}) == "lr(sigma=0.001)"


def test_options_of_options_are_canonical_and_parse_back() -> None:
    """However they are written, quoted or not; text that only looks like options stays quoted."""
    ways = ["es(noise=low-rank( rank = 4 ))", "es(noise='low-rank(rank=4)')", "es(noise=low-rank(rank=4.0))"]
    assert {str(parse(text)) for text in ways} == {"es(noise=low-rank(rank=4))"}
    for value in ("low-rank(rank = 4)", "f(2)", "f(b=2, a=1)", "f()", "f(", "a b(c=1)", "for(c=1)"):
        assert parse(label("es", {"noise": value})) == Spec("es", {"noise": value})
    assert split("es(noise=low-rank(rank=4), sigma=1),lr") == ["es(noise=low-rank(rank=4), sigma=1)", "lr"]


def test_split_leaves_brackets_alone() -> None:
    text = "lr, es(sigma={'a': 1, 'b': 2}, noise=laplace),alr,"
    assert split(text) == ["lr", "es(sigma={'a': 1, 'b': 2}, noise=laplace)", "alr"]


def test_digest_ignores_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})
    with pytest.raises(ValueError, match="not JSON compliant|Out of range"):
        canonical_json(float("nan"))


def test_unknown_names_the_nearest() -> None:
    assert "Did you mean 'hybrid'?" in str(unknown("estimator", "hybird", ["lr", "hybrid"]))
    assert "Did you mean" not in str(unknown("estimator", "xyz", ["lr", "hybrid"]))
