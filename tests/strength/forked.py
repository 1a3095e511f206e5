"""Processes that need not import torch again: a server that has imported it forks each of them.

Like a process that is spawned, each starts without what the tests' own process has changed, and gets what it needs
by pickle.
"""

from __future__ import annotations

import multiprocessing

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.strength.killed", "gradprobe.probes.worker", "gradprobe.probes.run"])
