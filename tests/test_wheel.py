"""The package that a user installs: what it holds, and that it runs where there is no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("gradprobe", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is made of. It is built from a copy, so that nothing is left behind in the repository."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=out)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return zipfile.ZipFile(file)


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Code, checkpoints, py.typed, and what the page of the report is made of."""
    files = [path.relative_to(ROOT) for path in (ROOT / "gradprobe").rglob("*") if path.is_file()]
    kept = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == kept
    assert "gradprobe/py.typed" in held
    assert {
        f"gradprobe/problems/checkpoints/resnet5-digits-{name}.safetensors" for name in ("early", "trained")
    } <= held


def test_what_it_says_of_itself(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = message_from_string(wheel.read(name).decode())
    assert said["Name"] == "gradprobe"
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().startswith("# gradprobe")
    scripts = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "gradprobe = gradprobe.cli:main" in scripts
    assert any(held.endswith("licenses/LICENSE") for held in wheel.namelist())


def test_the_demo_runs_outside_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    wheel.extractall(site)
    code = "import gradprobe; print(gradprobe.__file__)\nfrom gradprobe.cli import main; main()\n"
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = [sys.executable, "-c", code, "demo", "--copies", "20", "--seeds", "3"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=empty, env=environment)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]) == site / "gradprobe" / "__init__.py"
    assert "a-hybrid" in done.stdout
    made = {file.name for file in (empty / "figures" / "demo").iterdir()}
    assert {"run", "layers.csv", "similarity.png", "similarity.pdf", "similarity.json"} <= made
