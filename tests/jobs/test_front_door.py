"""The three doors: the command `vsdmot`, `from pipeline import track`, and the wheel."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pipeline
from jobs.__main__ import main
from jobs.cli import load_config, parse_config
from jobs.commands import COMMANDS
from jobs.settings import settings_of
from model.shipped import here_or_shipped, shipped
from model.track.checkpoint import CheckpointError
from model.track.tracker import Tracker
from pipeline import TrackedFrame, track
from pipeline.archive.plan import Segment
from pipeline.inference.openvino_model import OpenVinoModel
from pipeline.storage.files import StorageError, list_videos
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.errors import DecodeError
from pipeline.video.probe import probe
from tests import ROOT
from tests.videos import cut, write_text, write_video


def config_of(job):
    """The settings of a job."""
    module = __import__(f"jobs.{job}", fromlist=["main"])
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and getattr(value, "job", None) == job
    )


# The command


def test_the_list_fits_a_terminal_and_has_an_example_of_each(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    for name, command in COMMANDS.items():
        assert re.search(rf"^{name} +{re.escape(command.line)}", text, re.MULTILINE)
        assert command.example in text


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_calls_that_the_job_takes(name):
    command = COMMANDS[name]
    program, called, *arguments = shlex.split(command.example)
    assert (program, called) == ("vsdmot", name)
    config = config_of(command.job)
    values = parse_config(config, arguments)
    assert getattr(values, command.words[0]) == arguments[0]
    assert {*command.words, *command.common} <= dict(settings_of(config)).keys()


def test_unknown_command_names_the_nearest(capsys):
    assert main(["trak", "a"]) == 2
    assert "did you mean vsdmot track?" in capsys.readouterr().err
    assert main(["kit_back"]) == 2
    assert "did you mean vsdmot kit-back?" in capsys.readouterr().err


def test_exit_codes_of_a_job_pass_through(capsys, tmp_path):
    with pytest.raises(SystemExit) as leaving:
        main(["track", "in", "out", "windo=3"])
    assert leaving.value.code == 2
    assert "did you mean decode.window?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as leaving:
        main(["export", str(tmp_path / "nothing"), str(tmp_path / "out")])
    assert leaving.value.code == 1


def test_the_job_gets_all_words_as_they_are(monkeypatch):
    words = ["--config", "my.yaml", "-x", "--", "--help", "-h", "a=b", ""]
    monkeypatch.setattr("jobs.sample.main", lambda given: 7 if given == words else 1)
    assert main(["sample", *words]) == 7


@pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError, BrokenPipeError])
def test_what_a_job_raises_passes_through(error, monkeypatch):
    def fail(given):
        raise error

    monkeypatch.setattr("jobs.sample.main", fail)
    with pytest.raises(error):
        main(["sample"])


def test_words_stand_for_their_keys_and_settings_may_stand_between():
    given = parse_config(TrackConfig, ["/a=b", "low_quality_below=0.3", "s3://c/?x=1"])
    assert (given.input, given.output, given.low_quality_below) == ("/a=b", "s3://c/?x=1", 0.3)
    assert given == parse_config(
        TrackConfig, ["input=/a=b", "output=s3://c/?x=1", "low_quality_below=0.3"]
    )


def test_a_word_too_many_shows_the_call(capsys):
    with pytest.raises(SystemExit) as leaving:
        load_config(TrackConfig, ["a", "b", "c"])
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert "'c' is not understood" in error
    assert "vsdmot track INPUT OUTPUT" in error


def test_help_shows_an_example_then_common_keys_then_groups(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["track", "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    places = [
        text.index(part)
        for part in ("vsdmot track /my/videos", "usage: vsdmot track INPUT OUTPUT",
                     "common settings", "cluster.workers", "more settings", "limits: Bounds",
                     "limits.max_pixels", "mlflow: Where")
    ]  # fmt: skip
    assert places == sorted(places)
    listed = re.findall(r"^([a-z_.]+)  ", text, re.MULTILINE)
    assert sorted(listed) == sorted(dict(settings_of(TrackConfig)))


def test_list_and_help_import_neither_torch_nor_ray():
    code = """
import sys
from jobs.__main__ import main
from jobs.commands import COMMANDS
main([])
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as leaving:
        assert leaving.code == 0
import pipeline
print(sorted({"torch", "ray", "mlflow"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# Python


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "my.mp4", frames=19)


def test_frames_are_the_rows_of_a_run(video, weights, tmp_path):
    settings = TrackSettings(str(weights), str(tmp_path / "out"))
    info = probe(next(list_videos(str(video))))
    VideoTracker(settings).track(Segment(info))
    tracks, rows = (
        pq.read_table(f"{settings.output}/{table}/{info.video_id}.parquet").to_pandas()
        for table in ("tracks", "frames")
    )
    frames = list(track(video, weights, device="cpu"))
    assert [f.index for f in frames] == rows.frame_index.tolist()
    assert [f.time_s for f in frames] == rows.time_s.tolist()
    assert [f.quality for f in frames] == rows.quality.tolist()
    assert [len(f) for f in frames] == rows.num_tracks.tolist()
    assert len(tracks)
    for frame in frames:
        there = tracks[tracks.frame_index == frame.index]
        assert frame.ids.tolist() == there.track_id.tolist()
        assert np.array_equal(frame.boxes, there[["x", "y", "w", "h"]])
        assert np.array_equal(frame.scores, there.score)
        assert frame.class_names.tolist() == there.class_name.tolist()


def test_frames_come_before_the_video_is_read_to_its_end(weights, tmp_path, monkeypatch):
    long = write_video(tmp_path / "long.mp4", frames=120)
    windows = []
    encode = OpenVinoModel.encode

    def counted(self, *inputs):
        windows.append(len(inputs[0]))
        return encode(self, *inputs)

    monkeypatch.setattr(OpenVinoModel, "encode", counted)
    frames = track(long, weights, device="cpu")
    assert not windows
    assert next(frames).index == 0
    assert windows == [8]
    frames.close()


def test_detections_of_supervision():
    frame = TrackedFrame(
        index=3,
        time_s=0.1,
        quality=0.9,
        ids=np.array([5, 7]),
        boxes=np.array([[1, 2, 10, 20], [3, 4, 5, 6]], np.float32),
        scores=np.array([0.5, 0.75], np.float32),
        class_ids=np.array([0, 0]),
        class_names=np.array(["person"] * 2, object),
    )
    seen = frame.to_supervision()
    assert seen.xyxy.tolist() == [[1, 2, 11, 22], [3, 4, 8, 10]]
    assert (seen.tracker_id.tolist(), seen.confidence.tolist()) == ([5, 7], [0.5, 0.75])
    assert seen.data["class_name"].tolist() == ["person", "person"]


def empty_frame():
    none = np.zeros(0)
    return TrackedFrame(
        index=0,
        time_s=0.0,
        quality=0.9,
        ids=none.astype(int),
        boxes=none.reshape(0, 4),
        scores=none,
        class_ids=none.astype(int),
        class_names=none.astype(object),
    )


def test_no_people_are_detections_too():
    frame = empty_frame()
    assert len(frame.to_supervision()) == 0


def test_without_supervision_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"vsdmot\[report\]"):
        empty_frame().to_supervision()


def test_a_bad_video_fails_at_the_call(weights, tmp_path):
    with pytest.raises(StorageError, match=r"none\.mp4"):
        track(tmp_path / "none.mp4", weights)
    with pytest.raises(DecodeError, match=r"words\.mp4: not a video.*; give a file"):
        track(write_text(tmp_path / "words.mp4"), weights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match=r"0 videos are in it; .*vsdmot track"):
        track(tmp_path / "empty", weights)
    with pytest.raises(CheckpointError, match=r"nanno: no such weights file.*nano"):
        track(write_video(tmp_path / "a.mp4", frames=2), "nanno")


def test_a_video_that_breaks_off_says_so(weights, tmp_path):
    broken = cut(write_video(tmp_path / "broken.avi", frames=40), 0.6)
    with pytest.warns(RuntimeWarning, match=r"broken\.avi: .*the frames up to there"):
        frames = list(track(broken, weights, device="cpu"))
    assert 0 < len(frames) < 40


def test_a_whole_video_warns_of_nothing(video, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert len(list(track(video, weights, device="cpu"))) == 19


def test_pretrained_tracker(weights):
    assert Tracker.from_pretrained("nano").config.size == "nano"
    tiny = Tracker.from_pretrained(weights)
    assert tiny.config.size == "tiny"
    assert not tiny.training
    with pytest.raises(CheckpointError, match=r"small: no such weights file.*one of nano"):
        Tracker.from_pretrained("small")


def python_of(text):
    """The Python blocks of a Markdown text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    "example", [*python_of(pipeline.__doc__), *python_of((ROOT / "README.md").read_text())]
)
def test_examples_of_python_run(example, video, tmp_path, monkeypatch, capsys):
    shutil.copy(video, tmp_path / "my.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})
    assert capsys.readouterr().out.count("\n") >= 19


def test_an_unknown_name_of_the_package_is_an_error():
    with pytest.raises(AttributeError, match="'tracks'"):
        _ = pipeline.tracks


# What comes with the code


def test_the_working_directory_comes_first_then_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "weights/vsdmot-nano.safetensors"
    assert here_or_shipped(name) == str(shipped(name))
    assert here_or_shipped("weights/other.safetensors") == "weights/other.safetensors"
    assert here_or_shipped("s3://bucket/a.safetensors") == "s3://bucket/a.safetensors"
    own = tmp_path / name
    own.parent.mkdir()
    own.touch()
    assert here_or_shipped(name) == name


def test_a_job_finds_config_and_weights_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(TrackConfig, ["in", "out"])
    assert Path(config.weights).is_file()
    kit = parse_config(config_of("kit"), ["shards", "weights/vsdmot-nano.safetensors"])
    assert Path(kit.start).is_file()
    assert kit.part_mb == 40
    assert kit.output == "weights/vsdmot-nano.safetensors"  # what is written is where it is given


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what a wheel of the repository holds."""
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "made"))
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("model", "pipeline", "jobs", "configs", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, "-m", *build, "-w", made, source], check=True)
    (wheel,) = made.glob("*.whl")
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def called(installed, folder, code, *arguments):
    """Run Python with the wheel's packages instead of the repository's."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=folder, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_wheel_holds_all_that_is_needed(installed):
    files = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    tops = {name.split("/")[0] for name in files if ".dist-info" not in name}
    assert tops == {"model", "pipeline", "jobs", "vsdmot_data"}
    for package in ("model", "pipeline", "jobs"):
        assert f"{package}/py.typed" in files
        ours = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*.py*")}
        assert {name for name in ours if "__pycache__" not in name} <= files
    pages = [p for p in (ROOT / "pipeline").rglob("*") if p.suffix in (".html", ".css", ".js")]
    assert len(pages) > 3 and {str(p.relative_to(ROOT)) for p in pages} <= files
    data = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "configs").rglob("*.json")]
    data += (ROOT / "weights").glob("*.safetensors")
    assert {f"vsdmot_data/{p.relative_to(ROOT)}" for p in data} <= files
    entries = ConfigParser()
    entries.read(next(installed.glob("*.dist-info/entry_points.txt")))
    assert dict(entries["console_scripts"]) == {"vsdmot": "jobs.__main__:main"}


@pytest.mark.slow
def test_the_wheel_tracks_a_clip_from_an_empty_folder(installed, video, tmp_path):
    run = "import sys; from jobs.__main__ import main; sys.exit(main())"
    listed = called(installed, tmp_path, run)
    assert listed.returncode == 0
    assert "vsdmot track /my/videos /my/tracks" in listed.stdout
    done = called(
        installed, tmp_path, run, "track", video, "tables", "cluster.workers=0",
        "mlflow.enabled=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "tables" / "run.json").read_text())
    assert str(installed / "vsdmot_data") in json.dumps(record)
    assert len(list((tmp_path / "tables" / "videos").iterdir())) == 1
    teachers = "from model.teach.tower import _TEACHERS; print(*_TEACHERS.iterdir())"
    assert str(installed) in called(installed, tmp_path, teachers).stdout
