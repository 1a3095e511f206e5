"""The IPython that this process may run in; it is never imported, only found."""

from __future__ import annotations

import sys
from typing import Any


def running_shell() -> Any:
    """The running IPython, in a terminal or a notebook; None if there is none."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return ask() if ask is not None else None


def notebook_shell() -> Any:
    """The running IPython if it is the kernel of a notebook, which shows HTML; else None."""
    shell = running_shell()
    return shell if getattr(shell, "kernel", None) is not None else None
