"""Tests that need optional libraries. Hugging Face's are offline here, with a cache of the run's own."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="gradprobe-hf-")
