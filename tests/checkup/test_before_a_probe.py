"""The quick look before a probe, what becomes of its warnings, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import gradprobe as gp
from gradprobe.checkup import engines
from gradprobe.cli import main
from gradprobe.report.tables import notes
from gradprobe.store.assemble import attribute
from tests.checkup.models import batch, net, of

QUICK = {"copies": 20, "seeds": 2}


def detached() -> gp.Problem:
    return gp.Problem(net(lambda m, x: m.last(torch.tanh(m.first(x)).detach())), batch(6, 4))


def test_what_is_refused_stops_a_probe_before_anything_is_written(tmp_path: Path) -> None:
    problem = gp.Problem(net(), batch(6, 4))
    with pytest.raises(gp.UsageError, match="rounded away in float32"):
        gp.probe(problem, "es", sigma=1e-9, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_warnings_travel_with_the_run(tmp_path: Path) -> None:
    ds = gp.probe(detached(), "lr", out=tmp_path / "run", **QUICK)
    (warned,) = attribute(ds, "doctor")
    assert (warned["check"], warned["layer"], warned["status"]) == ("backprop", "first", "warning")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["facts"]["doctor"] == [warned]
    opened = gp.open_run(tmp_path / "run")
    assert attribute(opened, "doctor") == [warned]
    assert f"doctor, backprop: {warned['sentence']}" in notes(opened)


def test_warnings_of_older_requests_stay(tmp_path: Path) -> None:
    problem = detached()
    gp.probe(problem, "lr", layers="first", out=tmp_path / "run", **QUICK)
    for layers in ("last", None):  # what is looked at, and nothing that is left to compute
        ds = gp.probe(problem, "lr", layers=layers, out=tmp_path / "run", **QUICK)
        assert [w["layer"] for w in attribute(ds, "doctor")] == ["first"]


def test_a_healthy_probe_has_no_warnings() -> None:
    assert attribute(gp.probe(gp.Problem(net(), batch(6, 4)), ["lr", "es"], **QUICK), "doctor") == []


def test_engines_are_timed_and_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """More copies a second than the loop, by an engine that agrees with it, for a model that allows both."""
    monkeypatch.setattr(engines, "COPIES", 5000)
    value = of(gp.doctor(gp.Problem(net(), batch(6, 4)), "lr"), "engines").value
    assert value["failed"] == {}
    assert set(value["units"]) == {"activations of first", "activations of last"}
    for unit in value["units"].values():
        assert all(speed > 0 for speed in unit["copies_per_second"].values())
        assert unit["used"].split()[0] in ("loop", "tile", "vmap")


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gradprobe", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


SMALL = ("--checkpoint", "trained", "--batch-size", "4", "--layers", "fc")


def test_the_command_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert command(monkeypatch, "doctor", *SMALL) == 0
    out = capsys.readouterr().out
    assert "resnet5, trained, digits: all ok" in out
    assert "fc" in out


def test_the_command_prints_json_and_refuses_with_2(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    words = ("doctor", *SMALL, "--quick", "--json", "--sigma", "1e-10", "--estimators", "es")
    assert command(monkeypatch, *words) == 2
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {f["check"] for f in found if f["status"] == "refused"} == {"precision"}


def test_the_command_answers_mistakes_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert command(monkeypatch, "doctor", *SMALL, "--estimators", "lrr") == 2
    error = capsys.readouterr().err.strip()
    assert "Did you mean 'lr'" in error
    assert "\n" not in error


def test_the_command_probe_prints_warnings(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    """Noise of 3e-6 is partly rounded away: that is said on stderr, in one line a warning."""
    words = ("probe", *SMALL, "--sigma", "3e-6", "--estimators", "lr", "--copies", "20", "--seeds", "2")
    assert command(monkeypatch, *words, "--out", str(tmp_path / "run")) == 0
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("doctor, ")]
    assert len(lines) == 1
    assert lines[0].startswith("doctor, precision: ")
    assert "on the activations of layer 'fc'" in lines[0]
