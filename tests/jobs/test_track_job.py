"""The whole job: `vsdmot track` on an archive with good and bad files, and its promises."""

import json
import shutil
import signal
import time

import duckdb
import pytest
import ray

from jobs.track import main
from model.net.config import ModelConfig
from model.track.checkpoint import CheckpointMetadata, save_tracker
from tests.tiny import TINY, tiny_tracker
from tests.videos import cut, write_empty, write_text, write_video

GOOD = 5


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    (folder / "cam 1").mkdir()
    for number in range(GOOD - 1):
        write_video(folder / "cam 1" / f"{number}.mp4", frames=40 - number)
    write_video(folder / "new\nline 'ü\".mp4", frames=12, codec="mpeg4")
    faststart = {"movflags": "faststart"}
    cut(write_video(folder / "cut.mp4", frames=30, container_options=faststart), 0.6)
    write_empty(folder / "zero.mp4")
    write_text(folder / "text.mp4")
    return folder


def arguments(archive, output, weights, *more):
    given = [f"input={archive}", f"output={output}", f"weights={weights}"]
    return [*given, "mlflow.enabled=false", "report=false", *more]


def exit_code(argv):
    try:
        return main(argv)
    except SystemExit as leaving:
        return leaving.code


@pytest.fixture(scope="module")
def undisturbed(archive, weights, tmp_path_factory):
    """The output of a run in one process that nothing disturbed, to be read or copied."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert exit_code(arguments(archive, output, weights, "cluster.workers=0")) == 3
    return output


def rows(output, table, columns="*"):
    query = f"select {columns} from '{output}/{table}/*.parquet' order by all"
    return duckdb.sql(query).fetchall()


WHAT_IT_IS = "video_id, relative_path, status, frames_expected, frames_decoded, num_tracks"


def test_every_file_is_done_or_dead(undisturbed):
    done = {row[0] for row in rows(undisturbed, "videos", "video_id")}
    dead = rows(undisturbed, "dead_letters", "video_id, relative_path, stage, kind")
    assert len(done) == GOOD + 1
    assert {row[1:] for row in dead} == {(n, "probe", "input") for n in ("zero.mp4", "text.mp4")}
    assert not done & {row[0] for row in dead}
    assert len(rows(undisturbed, "manifest")) == GOOD + 3
    assert {row[2] for row in rows(undisturbed, "videos", WHAT_IT_IS)} == {"ok", "partial"}
    assert len(rows(undisturbed, "tracks")) > 0
    record = json.loads((undisturbed / "run.json").read_text())
    assert record["config"]["decode"]["window"] == 8
    assert len(record["model_sha256"]) == 64
    assert [name.split()[0] for name in record["runtimes"]] == ["openvino"]


def test_running_again_does_nothing(archive, weights, undisturbed, tmp_path):
    output = shutil.copytree(undisturbed, tmp_path / "out")

    def times():
        return {p: p.stat().st_mtime_ns for p in output.rglob("*/*.parquet")
                if p.parent.name != "manifest"}  # fmt: skip

    before = times()
    assert len(before) > GOOD
    assert exit_code(arguments(archive, output, weights, "decode.window=4")) == 3
    assert times() == before
    assert json.loads((output / "run.json").read_text())["runtimes"]
    assert not ray.is_initialized()


def test_changed_settings_are_refused_by_name(archive, weights, undisturbed, capsys, tmp_path):
    output = shutil.copytree(undisturbed, tmp_path / "out")
    other = tmp_path / "other.safetensors"
    save_tracker(other, tiny_tracker(1), CheckpointMetadata(model=TINY))
    more = ["tracker.birth_threshold=0.9", "low_quality_below=0.25", "decode.queue_size=4"]
    assert exit_code(arguments(archive, output, other, *more)) == 2
    error = capsys.readouterr().err
    assert (
        f"tracker.birth_threshold: {ModelConfig().birth_threshold} in the folder, 0.9 now" in error
    )
    assert "low_quality_below: 0.5 in the folder, 0.25 now" in error
    assert "weights: " in error
    assert "queue_size" not in error
    # What the checkpoint says anyway is no change.
    same = f"tracker.birth_threshold={TINY.birth_threshold}"
    assert exit_code(arguments(archive, output, weights, same)) == 3


def test_exit_codes(archive, weights, tmp_path, capsys):
    good = archive / "new\nline 'ü\".mp4"
    assert exit_code(arguments(good, tmp_path / "a", weights, "cluster.workers=0")) == 0
    out = tmp_path / "b"
    for argv, code, words in (
        (arguments(tmp_path / "nowhere", out, weights), 1, "nowhere"),
        (arguments(tmp_path, out, weights), 1, "no video in"),
        (arguments(archive, out, tmp_path / "no.safetensors"), 2, "no such weights file"),
        (arguments(archive, out, weights, "decode.window=0"), 2, "1 to 256"),
    ):
        assert exit_code(argv) == code
        assert words in capsys.readouterr().err
    assert not out.exists()
    assert not ray.is_initialized()


def test_a_list_names_what_is_not_there_and_tracks_the_rest(archive, weights, tmp_path, capsys):
    listed, output = tmp_path / "list.csv", tmp_path / "out"
    listed.write_text(f"path\n{archive}/cam 1/3.mp4\n{tmp_path}/none.mp4\n")
    argv = arguments(f"@{listed}", output, weights, "cluster.workers=0")
    assert exit_code(argv) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/none.mp4: cannot read {tmp_path}/none.mp4: " in said
    assert "1 video in one pass (video): shorter than two windows of 600 s" in said
    assert rows(output, "videos", "relative_path, split_mode, segments") == [
        (f"{archive}/cam 1/3.mp4".lstrip("/"), "video", 1)
    ]
    write_video(tmp_path / "none.mp4", frames=3)
    assert exit_code(argv) == 0
    assert len(rows(output, "videos")) == 2
    listed.write_text("path\n")
    assert exit_code(argv) == 1
    assert "no path in the list" in capsys.readouterr().err


def test_modes_that_give_the_same_rows_may_change(archive, weights, tmp_path, capsys):
    good = archive / "new\nline 'ü\".mp4"
    argv = arguments(good, tmp_path, weights, "cluster.workers=0", "reid.max_gap_s=0")
    assert exit_code([*argv, "split.mode=video"]) == 0
    assert exit_code([*argv, "split.mode=resume", "split.seconds=60"]) == 0
    assert exit_code([*argv, "split.mode=parallel"]) == 2
    assert "split.mode: " in capsys.readouterr().err
    assert exit_code([*argv, "split.mode=video", "reid.max_gap_s=5"]) == 2
    assert "reid.max_gap_s: 0.0 in the folder, 5.0 now" in capsys.readouterr().err


def test_mlflow_run(archive, weights, tmp_path, capsys):
    from mlflow import MlflowClient

    good, uri = archive / "new\nline 'ü\".mp4", f"sqlite:///{tmp_path}/mlflow.db"
    argv = [f"input={good}", f"weights={weights}", "cluster.workers=0", "mlflow.experiment=e"]
    assert exit_code([*argv, f"output={tmp_path}/a", f"mlflow.uri={uri}"]) == 0
    client = MlflowClient(uri)
    run = client.search_runs([client.get_experiment_by_name("e").experiment_id])[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["decode.window"] == "8"
    assert run.data.metrics["frames"] == 12
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
        "manifest.parquet", "run.json", "summary.json"
    }  # fmt: skip
    # A log that cannot be written is told of once, and changes nothing else.
    (tmp_path / "file").touch()
    broken = f"mlflow.uri=sqlite:///{tmp_path}/file/mlflow.db"
    assert exit_code([*argv, f"output={tmp_path}/b", broken]) == 0
    assert capsys.readouterr().out.count("the job goes on without it") == 1


@pytest.mark.timeout(600)
def test_kill_and_run_again(warm, archive, weights, undisturbed, tmp_path):
    output = tmp_path / "killed"
    command = "jobs.track", arguments(archive, output, weights, "cluster.workers=1")
    driver = warm.start(*command)
    deadline = time.monotonic() + 300
    while not list(output.glob("videos/*.parquet")):
        assert driver.poll() is None, driver.said()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    committed = len(list(output.glob("videos/*.parquet")))
    assert 1 <= committed <= GOOD  # in mid-run
    again = warm.run(*command, timeout=300)
    assert again.returncode == 3, again.stdout + again.stderr
    for table, columns in (
        ("tracks", "*"), ("frames", "*"), ("videos", WHAT_IT_IS),
        ("dead_letters", "video_id, relative_path, stage, kind, message"),
    ):  # fmt: skip
        assert rows(output, table, columns) == rows(undisturbed, table, columns), table
    twice = (
        f"select 1 from '{output}/tracks/*.parquet' "
        "group by video_id, frame_index, track_id having count(*) > 1"
    )
    assert not duckdb.sql(twice).fetchall()
