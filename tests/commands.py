"""The gradprobe command for tests: in this process, or in one of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch

from gradprobe.cli import main


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does: two seconds of imports."""
    code = "from gradprobe.cli import main; main()"
    run = [sys.executable, "-c", code, *words]
    return subprocess.run(run, capture_output=True, text=True, check=False, **options)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process; warnings are errors here, where a process would print them."""
    given, threads = sys.argv, torch.get_num_threads()
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["gradprobe", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        sys.argv = given
        torch.set_num_threads(threads)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
