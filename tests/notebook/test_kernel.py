"""In a real kernel, started once: what is shown, what an interrupt does, and the interactive view."""

from __future__ import annotations

import base64
import io
import queue
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

import gradprobe

PATIENCE = 120.0
"""Seconds after which a kernel that says nothing counts as dead."""

BEGUN = re.compile(r"[1-9][\d,]* of [\d,]+ copies ·")

SHOWN = ("stream", "error", "display_data", "update_display_data", "execute_result")


class Kernel:
    """A kernel and its client."""

    def __init__(self) -> None:
        root = Path(gradprobe.__file__).parents[1]
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(root))

    def run(self, code: str, interrupt: bool = False) -> list[dict[str, Any]]:
        """Outputs of a cell; the kernel may be interrupted, once the line tells of copies that are done."""
        wanted, outputs, until = self.client.execute(code), [], time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != wanted:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind in SHOWN:
                outputs.append({"kind": kind, **content})
            if interrupt and BEGUN.search(str(content.get("data"))):
                interrupt = False
                self.manager.interrupt_kernel()
            if kind == "status" and content["execution_state"] == "idle":
                return outputs
        raise TimeoutError(code)

    def value(self, code: str) -> str:
        """What a cell prints, and nothing else."""
        outputs = self.run(code)
        assert [out["kind"] for out in outputs] == ["stream"], outputs
        return str(outputs[0]["text"]).strip()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    found = Kernel()
    found.run("import gradprobe as gp\nfrom tests.problems_tiny import classifier")
    yield found
    found.client.stop_channels()
    found.manager.shutdown_kernel(now=True)


LONG = "copies=2_000_000, block=1000, seeds=2"


def test_a_run_is_shown_as_a_table_and_its_progress_as_one_line(kernel: Kernel) -> None:
    line, shown = (
        [
            out
            for out in kernel.run("gp.probe(classifier(), ['lr'], copies=40, seeds=3)")
            if out["kind"] in kinds
        ]
        for kinds in [("display_data",), ("execute_result",)]
    )
    assert len(line) == 1
    assert len(shown) == 1
    assert "whole model" in shown[0]["data"]["text/html"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_probe_returns_what_it_has(kernel: Kernel, workers: int) -> None:
    code = f"ds = gp.probe(classifier(), ['lr'], workers={workers}, {LONG})"
    outputs = kernel.run(code, interrupt=True)
    assert [out["kind"] for out in outputs if not out["kind"].endswith("display_data")] == []
    assert outputs[-1]["data"]["text/plain"].startswith("Stopped: ")
    stopped, some, all_ = kernel.value(
        "there = ds['sqnorm'].notnull(); print(ds.attrs['stopped'], int(there.any()), int(there.all()))"
    ).split()
    assert (stopped, some, all_) == ("1", "1", "0")
    assert kernel.value("print(1 + 1)") == "2"


def test_the_same_call_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    settings = f"classifier(), ['lr'], copies=10_000, block=20, seeds=2, out={str(tmp_path / 'run')!r}"
    kernel.run(f"ds = gp.probe({settings})", interrupt=True)
    assert kernel.value("print(ds.attrs['stopped'], bool(ds['sqnorm'].notnull().all()))") == "1 False"
    outputs = kernel.run(f"ds = gp.probe({settings})")
    assert outputs[-1]["data"]["text/plain"].endswith(" (more was there before).")
    assert kernel.value("print(ds.attrs.get('stopped'), bool(ds['sqnorm'].notnull().all()))") == "None True"


def test_explore_answers_in_a_kernel(kernel: Kernel) -> None:
    shown = kernel.run(
        "ds = gp.probe(classifier(), ['lr', 'alr'], copies=40, block=4, seeds=3, progress=False)\n"
        "view = gp.explore(ds); view"
    )
    assert "application/vnd.jupyter.widget-view+json" in shown[-1]["data"]
    assert "data:image/png" in shown[-1]["data"]["text/html"]
    assert (
        kernel.value(
            "view.layer.value = 'last'; view.copies.value = (8, 32)\n"
            "truth = gp.stats.accuracy(ds, copies=(8, 32)).mean('seed').sel(layer='last')\n"
            "print(abs(view.table['accuracy'].values - truth.values).max() < 1e-12)"
        )
        == "True"
    )


@pytest.mark.parametrize("before", ["", "%matplotlib inline\nimport matplotlib.pyplot as plt\n"])
def test_a_figure_is_shown_once_with_twice_the_dots(kernel: Kernel, before: str) -> None:
    outputs = kernel.run(f"{before}gp.plots.similarity(ds, width='single')")
    assert [out["kind"] for out in outputs] == ["execute_result"]
    assert set(outputs[0]["data"]) == {"image/png", "text/plain"}
    image = Image.open(io.BytesIO(base64.b64decode(outputs[0]["data"]["image/png"])))
    size = outputs[0]["metadata"]["image/png"]
    assert image.size == pytest.approx((2 * size["width"], 2 * size["height"]), abs=2)
    assert size["width"] == round(3.4 * 120)
