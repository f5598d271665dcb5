"""Exported trackers track as `Tracker` does, without this project."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs import export
from model.track.tracker import Tracker
from pipeline.inference.openvino_core import openvino_core
from pipeline.tracking.api import track
from tests.tiny import TINY, tiny_inputs
from tests.videos import write_video

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "track_exported.py"
FRAMES = 8
FORMATS = ("onnx", "openvino", "torch")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, weights):
    """A folder for each format."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in FORMATS:
        job = [f"input={weights}", f"output={folder / kind}", f"format={kind}"]
        assert export.main(job) == 0
    return folder


def in_onnxruntime(path, model):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    names = [port["name"] for port in model["outputs"]]
    return lambda given: dict(zip(names, session.run(names, given), strict=True))


def in_openvino(path, model):
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: {port.get_any_name(): x for port, x in compiled(given).items()}


def in_torch(path, model):
    script = torch.jit.load(str(path))

    def run(given):
        made = script(*(torch.from_numpy(given[port["name"]]) for port in model["inputs"]))
        return {port["name"]: x.numpy() for port, x in zip(model["outputs"], made, strict=True)}

    return run


RUNTIMES = {"onnx": in_onnxruntime, "openvino": in_openvino, "torch": in_torch}


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*deprecated")
@pytest.mark.parametrize("kind", FORMATS)
def test_an_exported_tracker_gives_the_ids_of_the_tracker(exported, weights, kind):
    folder = exported / kind
    about = json.loads((folder / "model.json").read_text())
    encode, step = (
        RUNTIMES[kind](folder / about[name]["file"], about[name]) for name in ("encode", "step")
    )
    ports = {port["name"]: (port["shape"], port["dtype"]) for port in about["step"]["inputs"]}
    first = {x["before"]: x["first"] for x in about["state"]} | about["thresholds"]
    state = {name: np.full(ports[name][0], value, ports[name][1]) for name, value in first.items()}

    tracker, _ = Tracker.load(weights)
    images, valid, patches = tiny_inputs(FRAMES)
    with torch.inference_mode():
        wanted, _ = tracker.track(tracker.encode(images, valid, patches), tracker.initial_state(1))
    seen = 0
    for i, mine in enumerate(wanted):
        frame = {
            "in_image": images[i].permute(1, 2, 0)[None].contiguous().numpy(),
            "in_valid": valid[i : i + 1].numpy(),
            "in_patches": patches[i : i + 1].numpy(),
        }
        encoded = encode(frame)
        for port in about["encode"]["outputs"]:
            assert list(encoded[port["name"]].shape) == port["shape"]
        given = {name.replace("out_", "in_"): x for name, x in encoded.items()}
        found = step(given | state)
        state |= {x["before"]: found[x["after"]] for x in about["state"]}
        there = mine.track_id >= 0
        seen += int(there.sum())
        assert np.array_equal(found["out_track_id"], mine.track_id.numpy())
        assert np.array_equal(found["out_labels"][there], mine.labels[there].numpy())
        np.testing.assert_allclose(found["out_boxes"][there], mine.boxes[there], atol=0.02)
        np.testing.assert_allclose(found["out_scores"][there], mine.scores[there], atol=1e-3)
    assert seen > FRAMES, "the test tracks nothing"


def test_the_description_has_what_a_caller_needs(exported):
    about = json.loads((exported / "onnx" / "model.json").read_text())
    assert about["classes"] == list(TINY.classes)
    assert (about["canvas"]["height"], about["canvas"]["width"]) == (64, 96)
    assert about["thresholds"]["in_birth_threshold"] == pytest.approx(TINY.birth_threshold)
    inputs, outputs = (
        {port["name"] for port in about["step"][side]} for side in ("inputs", "outputs")
    )
    assert {x["before"] for x in about["state"]} | set(about["thresholds"]) <= inputs
    assert {x["after"] for x in about["state"]} <= outputs
    assert not inputs & outputs


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_the_example_runs_without_this_project_and_gives_its_rows(
    exported, tmp_path, weights, kind
):
    video = write_video(tmp_path / "walk.mp4", frames=FRAMES, width=120, height=80)
    # In another folder and without site paths of this project, so none of its modules is there.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['model', 'pipeline', 'jobs', 'torch']));"
        f"sys.argv[1:] = [{str(exported / kind)!r}, {str(video)!r}];"
        f"exec(compile(open({str(EXAMPLE)!r}).read(), 'example', 'exec'))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert said.returncode == 0, said.stderr
    rows = [line.split() for line in said.stdout.splitlines()]
    wanted = [(frame.index, i) for frame in track(video, weights, "cpu") for i in frame.ids]
    assert wanted
    assert [
        (int(row[0]), int(row[1])) for row in sorted(rows, key=lambda r: (int(r[0]), int(r[1])))
    ] == wanted


def test_a_format_without_its_package_is_refused(monkeypatch, tmp_path, weights, capsys):
    monkeypatch.setattr("pipeline.inference.export.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        export.main([f"input={weights}", f"output={tmp_path / 'out'}", "format=onnx"])
    assert ended.value.code == 1
    assert "pip install 'vsdmot[export]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        export.main(["input=nowhere.safetensors", f"output={tmp_path}", "format=torch"])
    assert ended.value.code == 1
    assert "nowhere.safetensors" in capsys.readouterr().err


def test_another_canvas_is_exported(tmp_path, weights):
    out = tmp_path / "wide"
    job = [f"input={weights}", f"output={out}", "format=torch", "canvas=[64,128]"]
    assert export.main(job) == 0
    about = json.loads((out / "model.json").read_text())
    assert about["encode"]["inputs"][0]["shape"] == [1, 64, 128, 3]
