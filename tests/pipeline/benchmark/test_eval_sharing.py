"""What trackers of a pass share is computed once, and is what each would have computed alone."""

import shutil
import time

import numpy as np
import pytest

for library in ("trackeval", "pycocotools", "trackers"):
    pytest.importorskip(library)

import pipeline.benchmark.run_trackers  # noqa: E402
from model.net.letterbox import Letterbox  # noqa: E402
from model.track.tracker import Tracker  # noqa: E402
from pipeline.benchmark.cells import read_row  # noqa: E402
from pipeline.benchmark.plan import EvalSettings, Unit, cell_uri, plan_cells  # noqa: E402
from pipeline.benchmark.run_trackers import run_trackers  # noqa: E402
from pipeline.benchmark.unit import run_unit  # noqa: E402
from pipeline.datasets.layouts import read_data  # noqa: E402
from pipeline.datasets.synthetic import make_synthetic  # noqa: E402
from pipeline.degrade.conditions import Condition  # noqa: E402
from pipeline.inference import compiled  # noqa: E402
from pipeline.inference.runtime import RuntimeUnavailable  # noqa: E402
from pipeline.trackers.runners import StudentRun, joined  # noqa: E402
from pipeline.trackers.sequence_frames import Shot  # noqa: E402
from pipeline.trackers.spec import parse_trackers  # noqa: E402
from pipeline.trackers.variants import VARIANTS, make_variants  # noqa: E402
from pipeline.video.decode import Frame  # noqa: E402
from tests.tiny import tiny_inputs, tiny_tracker  # noqa: E402

FRAMES = 6
NOISE = Condition("noise", 3)


class Watched:
    """A detector that counts how often it is asked, and finds one person in the middle."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, picture):
        self.asked += 1
        height, width = picture.shape[:2]
        return np.array([[0.4 * width, 0.3 * height, 0.2 * width, 0.5 * height]]), np.array([0.9])


@pytest.fixture(scope="module")
def place(weights, tmp_path_factory):
    root = tmp_path_factory.mktemp("sharing")
    make_synthetic(root / "data", sequences=1, frames=FRAMES, people=3)
    shutil.copy(weights, root / "s.safetensors")
    (root / "d.onnx").write_bytes(b"stands for a detector")
    return root


def trackers(place, *names):
    return parse_trackers(
        names, {"student": str(place / "s.safetensors")}, {"seen": str(place / "d.onnx")}
    )


def test_trackers_of_one_pass_give_what_each_gives_alone(place, monkeypatch):
    monkeypatch.setattr(pipeline.benchmark.run_trackers, "open_detector", lambda path: Watched())
    sequence = read_data(place / "data").sequences["SYNTH-01"]
    settings = EvalSettings(str(place / "out"), window=4)
    names = ["student", *(f"student:{v}" for v in VARIANTS[1:])]
    many = [*trackers(place, *names), trackers(place, "sort+seen")[0].source]
    together = run_trackers(sequence, NOISE, many, settings)
    assert len(together.outputs) == len(VARIANTS) + 1
    for tracker in many:
        alone = run_trackers(sequence, NOISE, [tracker], settings)
        one, other = together.outputs[tracker.name], alone.outputs[tracker.name]
        assert one.quality == other.quality
        assert one.semantic_weight == other.semantic_weight
        assert len(joined(one.detections))
        for of in ("tracks", "detections"):
            for column in ("frame", "track_id", "xywh", "confidence"):
                both = (getattr(joined(getattr(o, of)), column) for o in (one, other))
                np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("has_bf16", [False, True])
def test_a_student_runs_fast_or_says_why_it_cannot(place, monkeypatch, has_bf16):
    """A CPU without bf16 gives no figures under the name of the fast precision."""
    pytest.importorskip("openvino")
    # OpenVINO rounds to bf16 on any CPU, some only emulate it.
    monkeypatch.setattr(compiled, "has_bf16", lambda core: has_bf16)
    sequence = read_data(place / "data").sequences["SYNTH-01"]
    settings = EvalSettings(str(place / "out"), window=4)
    full, fast = trackers(place, "student", "student:fast")
    if not has_bf16:
        with pytest.raises(RuntimeUnavailable, match="exact: this CPU has no bf16"):
            run_trackers(sequence, NOISE, [fast], settings)
        return
    runs = run_trackers(sequence, NOISE, [full, fast], settings)
    one, other = runs.outputs["student"], runs.outputs["student:fast"]
    np.testing.assert_allclose(one.quality, other.quality, atol=0.1)
    assert one.quality != other.quality  # it is not the exact student once more
    assert len(other.quality) == FRAMES and len(joined(other.detections))


def test_three_peers_ask_their_detector_once_a_frame_and_score_alike_alone(place, monkeypatch):
    detector = Watched()
    monkeypatch.setattr(pipeline.benchmark.run_trackers, "open_detector", lambda path: detector)
    pipeline.benchmark.run_trackers._detector.cache_clear()
    sequence = read_data(place / "data").sequences["SYNTH-01"]
    names = ("bytetrack+seen", "ocsort+seen", "sort+seen")

    def rows(output, *wanted):
        settings = EvalSettings(str(place / output))
        cells = plan_cells([sequence], [NOISE], trackers(place, *wanted), settings)
        result = run_unit(Unit(sequence, NOISE, tuple(cells), settings))
        assert not result.failed
        assert result.frames == FRAMES
        assert set(result.core_s) == {"detectors", "peers", "scores", "rest", "frames"}
        assert min(result.core_s.values()) >= 0
        read = {c.tracker.name: read_row(cell_uri(settings.output, c)) for c in cells}
        return {name: (read[name]["hota"], read[name]["ap50"]) for name in wanted}

    together = rows("three", *names)
    assert detector.asked == FRAMES
    for name in names:
        assert rows(f"alone-{name}", name)[name] == together[name]
    pipeline.benchmark.run_trackers._detector.cache_clear()


def test_variants_hold_no_weights_twice_and_leave_the_student_as_it_is():
    student = tiny_tracker(lively=True)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    made = {v.name: v.tracker for v in make_variants(student, VARIANTS, NOISE)}
    weights = {id(parameter) for parameter in student.parameters()}
    for name, variant in made.items():
        own = [n for n, p in variant.named_parameters() if id(p) not in weights]
        assert all(n.startswith("gate.") for n in own) and bool(own) == (name == "gate_off")
    after = student.state_dict()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert type(student.gate) is not type(made["gate_off"].gate)


def test_a_percept_is_computed_once_and_its_time_counts_for_every_variant(monkeypatch):
    student = tiny_tracker(lively=True)
    calls = []
    perceive = Tracker.perceive

    def slow(tracker, *inputs):
        calls.append(tracker)
        time.sleep(0.2)
        return perceive(tracker, *inputs)

    monkeypatch.setattr(Tracker, "perceive", slow)
    box = Letterbox(64, 96, 64, 96)
    run = StudentRun(student, VARIANTS, "SYNTH-01", NOISE, box, "cpu")
    images, _, patches = (x.numpy() for x in tiny_inputs(4))
    frames = [Frame(i, i / 25, images[i].transpose(1, 2, 0), patches[i]) for i in range(4)]
    shots = [Shot(f.index, {(64, 96): f}, None, 0.0, 0.0, 0.0) for f in frames]
    for window in (shots[:2], shots[2:]):
        run.process(window)
    assert calls == [student, student]
    for output in run.outputs.values():
        assert len(output.stage_s["encode"]) == len(output.stage_s["step"]) == 4
        assert min(output.stage_s["encode"]) >= 0.1
    quality = {name: output.quality for name, output in run.outputs.items()}
    assert quality["gate_constant"] == [0.5] * 4
    assert quality["gate_oracle"] == [0.5] * 4  # severity 3
    assert len(set(quality["gate_random"])) == 4
    for name in ("gate_off", "no_semantics"):
        assert quality[name] == quality["full"]
    assert run.outputs["gate_off"].semantic_weight == [0.0] * 4
    assert min(run.outputs["no_semantics"].semantic_weight) > 0
