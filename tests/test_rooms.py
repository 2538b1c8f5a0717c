"""The rooms and the order of imports: a module imports only from rooms to its left."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_dml

ROOT = Path(nnunet_dml.__file__).parent
# rooms of one rank may not import one another, with the exceptions below
RANKS = [
    {"_checks", "_image_bytes"},
    {"_files", "_folders", "_images", "_parallel"},
    {"losses", "labels", "calibration", "metrics"},
    {"nnunet", "evaluation"},
    {"report", "plugin"},
    {"benchmark"},
    {"cli"},
]
UPSTREAM = {"nnunetv2", "batchgenerators", "batchgeneratorsv2"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def rank(name: str) -> int:
    return next(i for i, names in enumerate(RANKS) if name in names)


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def forbidden(path: Path, names: set[str]) -> set[str]:
    """Those of the imported names that the room of the file may not import."""
    here = room(path)
    if here == "__init__":
        return names
    bad = {name for name in names if name.split(".")[0] in UPSTREAM and here != "nnunet"}
    for name in names:
        parts = name.split(".")
        if parts[0] != "nnunet_dml" or len(parts) < 2 or not any(parts[1] in names for names in RANKS):
            continue
        if parts[1] != here and rank(parts[1]) >= rank(here):
            bad.add(name)
    return bad


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_rooms_to_its_left(path):
    if path == ROOT / "__init__.py":
        assert imports(path) == set()
        return
    assert forbidden(path, imports(path)) == set()


def test_the_guard_sees_a_wrong_import():
    assert forbidden(ROOT / "losses" / "overlap.py", {"nnunet_dml.nnunet.options"})
    assert forbidden(ROOT / "losses" / "overlap.py", {"nnunet_dml.metrics"})
    assert forbidden(ROOT / "evaluation" / "x.py", {"nnunetv2.paths"})
    assert not forbidden(ROOT / "nnunet" / "targets.py", {"nnunet_dml.losses", "nnunetv2.paths"})


@pytest.mark.parametrize("module", ["nnunet_dml", "nnunet_dml.cli.main"])
def test_importing_it_imports_neither_torch_nor_nnunet(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'nnunetv2', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_of_every_command_is_light():
    code = (
        "import sys; from nnunet_dml.cli.main import build_parser; build_parser().format_help(); "
        "print(sorted({'torch', 'nnunetv2', 'numpy', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
