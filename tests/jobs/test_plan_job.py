"""`vsdmot plan`: what it says is what `vsdmot track` does, and nothing is written."""

import json
import os
import tempfile

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from jobs.settings import settings_of
from pipeline.planning.config import PlanConfig
from pipeline.planning.estimate import bytes_before
from pipeline.tracking.config import TrackConfig
from tests.videos import cut, write_empty, write_text, write_video


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    for number in range(3):
        write_video(folder / f"{number}.mp4", frames=20 + number)
    write_video(folder / "long.mp4", frames=150)
    write_empty(folder / "zero.mp4")
    write_text(folder / "text.mp4")
    return folder


def test_every_setting_of_track_is_one_of_plan():
    """So that its command line can be pasted."""
    track, plan = dict(settings_of(TrackConfig)), dict(settings_of(PlanConfig))
    assert {key for key in track if plan.get(key) != track[key]} == {"output"}
    assert all(setting.meaning for setting in plan.values())


@pytest.fixture
def run(weights, capsys):
    """Runs a command with a tiny student, in one process; exit code, output and errors."""

    def call(command, *words):
        fixed = f"weights={weights}", "mlflow.enabled=false", "report=false", "cluster.workers=0"
        try:
            code = main([command, *map(str, words), *fixed])
        except SystemExit as leaving:
            code = leaving.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def planned(run, *words):
    code, out, err = run("plan", *words, "json=true")
    assert out, err
    return code, json.loads(out)


def everything(*folders):
    """Time of change and content of all below some folders, by path."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {
        path: (path.stat().st_mtime_ns, "" if path.is_dir() else path.read_bytes())
        for path in paths
    }


@pytest.mark.parametrize("cold", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nothing_is_written_anywhere(run, tmp_path, monkeypatch, cold):
    """With a trial and an output that a run has begun; cold: no graph is kept yet."""
    videos, output, here = (tmp_path / name for name in ("in", "out", "here"))
    cache, scratch = tmp_path / "cache", tmp_path / "tmp"
    for folder in (videos, here, cache, scratch):
        folder.mkdir()
    write_video(videos / "a done.mp4", frames=9)
    write_text(videos / "text.mp4")
    write_video(videos / "good.mp4", frames=300)
    # By its header it has as many frames, in 60 s. Of these the first 6 s can be read.
    faststart = {"movflags": "faststart"}
    cut(write_video(videos / "cut.mp4", frames=300, rate=5, container_options=faststart), 0.1)
    assert run("track", videos / "a done.mp4", output)[0] == 0
    monkeypatch.chdir(here)
    if cold:
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = everything(videos, output, here, cache)
    code, plan = planned(run, videos, output, "plan.seconds=0.5")
    assert everything(videos, output, here, cache) == before
    assert list(scratch.iterdir()) == []
    assert (code, plan["videos"], plan["done_before"], plan["dead_letters"]) == (3, 2, 1, 1)
    # A stretch that gives no frame is named, and the others are measured.
    assert "good.mp4" in {reading["path"] for reading in plan["trial"]["readings"]}
    assert list(plan["trial"]["failed"]) == ["cut.mp4"]
    assert plan["time"]["wall_s"]["expected"] > plan["time"]["start_s"] > 0
    assert plan["disk"]["output"] > 0


@pytest.mark.parametrize("split", [
    ["split.mode=parallel", "split.seconds=1", "split.overlap_s=0.2"],
    pytest.param(["split.seconds=2", "split.overlap_s=0.2"], marks=pytest.mark.slow),
    pytest.param(["only.start_s=0.2", "sample.fps=5"], marks=pytest.mark.slow),
])  # fmt: skip
def test_the_plan_is_what_is_done(archive, run, tmp_path, split):
    output = tmp_path / "out"
    code, plan = planned(run, archive, output, "plan.seconds=0", *split)
    assert not output.exists()
    assert run("track", archive, output, *split)[0] == code == 3
    videos = pq.read_table(output / "videos").to_pylist()
    modes = [video["split_mode"] for video in videos]
    assert plan["modes"] == {mode: modes.count(mode) for mode in set(modes)}
    assert plan["videos"] == len(videos) == 4
    assert plan["windows"] == sum(v["segments"] for v in videos if v["split_mode"] == "parallel")
    assert plan["dead_letters"] == len(list((output / "dead_letters").iterdir())) == 2
    assert {dead["path"] for dead in plan["dead"]} == {"zero.mp4", "text.mp4"}
    decoded = sum(video["frames_decoded"] for video in videos)
    assert plan["frames"] == pytest.approx(decoded, abs=len(videos))
    assert plan["hours"] * 3600 == pytest.approx(sum(v["video_s"] for v in videos), abs=1)
    # What is done drops out, and nothing is left.
    code, plan = planned(run, archive, output, *split)
    assert (code, plan["videos"], plan["done_before"], plan["dead_letters_before"]) == (0, 0, 4, 2)
    assert (plan["time"], plan["trial"]) == (None, None)
    tables = [file for name in ("frames", "tracks") for file in (output / name).iterdir()]
    size = sum(file.stat().st_size for file in tables)
    assert bytes_before(str(output)) == pytest.approx(size / decoded)
    again = planned(run, archive, output, "retry_dead_letters=true", *split)[1]
    assert again["dead_letters"] == 2


def test_a_given_rate_and_price(archive, run, tmp_path):
    words = ["rate=50", "price_per_hour=3600", "cluster.workers=4", "split.mode=video"]
    code, out, err = run("plan", archive, *words, "json=true")
    plan = json.loads(out)
    # The tiny run's settings come last, so one worker does all.
    frames = 20 + 21 + 22 + 150
    assert (code, err) == (3, "")
    assert plan["frames"] == frames
    assert plan["time"]["wall_s"] == {"expected": frames / 50, "low": None, "high": None}
    assert plan["time"]["longest_s"] == 3.0
    assert plan["time"]["longest"] == "long.mp4"
    assert plan["cost"]["expected"] == pytest.approx(frames / 50)
    assert plan["disk"] is None


def test_text_for_people(archive, run, tmp_path):
    code, out, _ = run("plan", archive, "rate=10", "plan.listed=1", "price_per_hour=0.5")
    assert code == 3
    for words in (
        "4 to track of 6 files found",
        "213 frames",
        "4 videos in one pass (video): shorter than two windows of 600 s",
        "about 21 s",
        "at least 15 s with any number of workers: long.mp4",
        "dead letters to come: 2",
        "… and 1 more; plan.listed=null lists all",
        "Open the file in a player.",
        "nothing was written",
    ):
        assert words in out


@pytest.mark.parametrize(("words", "code", "said"), [
    (["{empty}"], 1, "no video in"),
    (["{empty}/none"], 1, "none"),
    (["{archive}", "rate=0"], 2, "rate: 0 was given, allowed is a number, more than 0"),
    (["{archive}", "{other}"], 2, "holds results made with other settings"),
    (["{archive}", "plan.seconds=nan"], 2, "plan.seconds"),
    (["s3://a-bucket/x"], 1, "s3://a-bucket/x"),
])  # fmt: skip
def test_what_cannot_be_planned_says_why(archive, run, tmp_path, monkeypatch, words, code, said):
    places = {"archive": archive, "empty": tmp_path / "empty", "other": tmp_path / "other"}
    places["empty"].mkdir()
    places["other"].mkdir()
    record = {"job": "track", "schema_version": 1, "deciding": {}}
    (places["other"] / "run.json").write_text(json.dumps(record))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found, _, err = run("plan", *(word.format(**places) for word in words))
    assert (found, said in err) == (code, True), err


def test_a_list_with_a_missing_file_is_planned_without_it(archive, run, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{archive}/0.mp4\n{archive}/gone.mp4\n")
    code, plan = planned(run, f"@{listed}", "plan.seconds=0")
    assert (code, plan["videos"], plan["unread_files"]) == (1, 1, 1)
    assert "gone.mp4" in plan["unread"][0]["reason"]
    assert plan["notes"] == [
        "no time and no cost: nothing was tracked here, and rate= is not given"
    ]
