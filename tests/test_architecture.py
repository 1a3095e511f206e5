"""Imports go strictly downward, and the labelled side works without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gradprobe

ROOT = Path(gradprobe.__file__).parent
LEVELS = {
    "core": 0,
    "engine": 1,
    "layers": 1,
    "problems": 1,
    "store": 1,
    "checkup": 2,
    "estimators": 2,
    "stats": 2,
    "probes": 3,
    "trajectory": 3,
    "plots": 3,
    "audits": 4,
    "report": 4,
    "cli_options": 4,
    "cli_audit": 5,
    "cli_compare": 5,
    "cli_doctor": 5,
    "cli_plan": 5,
    "cli_trajectory": 5,
    "notebook": 5,
    "__init__": 6,
    "cli": 6,
}
LABELLED = ("store", "stats", "plots", "report", "notebook")
FILES = sorted(ROOT.rglob("*.py"))


def unit_of(file: Path) -> str:
    part = file.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Units that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names = [node.module or ""]
            if node.module == "gradprobe":
                names = [f"gradprobe.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("gradprobe.")}
    return found


def test_every_unit_has_a_level() -> None:
    assert {unit_of(f) for f in FILES} == set(LEVELS)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downward(file: Path) -> None:
    own = unit_of(file)
    for other in imported(file) - {own}:
        assert LEVELS[other] < LEVELS[own], f"{own} imports {other}"


@pytest.mark.parametrize("file", [f for f in FILES if unit_of(f) in LABELLED], ids=lambda f: f.stem)
def test_labelled_side_does_not_name_torch(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(n.split(".")[0] == "torch" for n in names)


def test_public_files_do_not_shadow_public_functions() -> None:
    from gradprobe.plots import PLOTS
    from gradprobe.stats import STATISTICS

    for registry in (STATISTICS, PLOTS):
        for entry in registry:
            assert not (ROOT / registry.package.split(".")[1] / f"{entry.name}.py").exists()


NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("no torch here")
sys.meta_path.insert(0, NoTorch())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light() -> None:
    heavy = (
        "('torch', 'matplotlib', 'seaborn', 'scipy', 'statsmodels', 'xarray', 'pandas', 'IPython', 'jinja2')"
    )
    code = f"import sys, gradprobe, gradprobe.cli; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_list_needs_no_torch() -> None:
    assert "alr" in run(NO_TORCH + "from gradprobe.cli import list_; list_()")


def test_results_open_without_torch(tmp_path: Path) -> None:
    from tests.problems_tiny import linear_problem

    gradprobe.probe(linear_problem(), ["lr", "alr"], copies=40, block=4, seeds=3, out=tmp_path / "run")
    code = (
        f"{NO_TORCH}import gradprobe as gp;"
        f"ds = gp.open_run({str(tmp_path / 'run')!r});"
        "law = gp.stats.alignment(ds); gp.plots.similarity(ds); print(gp.stats.cosine(ds).sizes['seed']);"
        "print(gp.verdict(ds).sentences[-1].split()[0]);"
        f"print(gp.write_html(ds, {str(tmp_path / 'page.html')!r}).name)"
    )
    assert run(code).split() == ["3", "All", "page.html"]


def test_every_public_name_exists() -> None:
    for name in gradprobe.__all__:
        assert getattr(gradprobe, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = gradprobe.nothing
