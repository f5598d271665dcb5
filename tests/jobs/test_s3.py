"""The job against a real S3 server process: buckets as archive and as output."""

import json
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from jobs.track import main
from jobs.train import run as train
from model.net.config import SIZES
from pipeline.runtime.settings import MlflowConfig
from pipeline.speed.archives.s3_server import s3_client, s3_server
from pipeline.training.config import WorkerConfig
from pipeline.training.train_job import TrainJob
from tests.tiny import TINY
from tests.training_parts import CLIPS, CONFIG
from tests.videos import write_text, write_video


@pytest.fixture(scope="module")
def endpoint():
    """Address of an S3 server in a process of its own, on loopback."""
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def bucket(endpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    s3 = s3_client(endpoint)
    s3.create_bucket(Bucket="cams")
    s3.create_bucket(Bucket="results")
    write_video(folder / "a.mp4", frames=12)
    write_video(folder / "b.mp4", frames=9)
    write_text(folder / "text.mp4")
    for path in folder.iterdir():
        s3.upload_file(str(path), "cams", f"2024/yard one/{path.name}")
    return s3


@pytest.fixture
def track(endpoint, bucket, weights, tmp_path, monkeypatch, capsys):
    """Run the job in this process with credentials or without; exit code and what it said."""

    def run(*arguments, credentials=True):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        settings = {"ENDPOINT_URL": endpoint, "EC2_METADATA_DISABLED": "true"}
        settings |= {"DEFAULT_REGION": "us-east-1", "CONFIG_FILE": str(tmp_path / "none")}
        settings |= {"SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
        if credentials:
            settings |= {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
        for name, value in settings.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        S3FileSystem.clear_instance_cache()
        fixed = f"weights={weights}", "mlflow.enabled=false", "report=false", "cluster.workers=0"
        try:
            code = main([*fixed, *arguments])
        except SystemExit as leaving:
            code = leaving.code
        return code, capsys.readouterr().err

    yield run
    S3FileSystem.clear_instance_cache()


def rows(s3, prefix):
    listed = s3.list_objects_v2(Bucket="results", Prefix=prefix).get("Contents", [])
    bodies = (s3.get_object(Bucket="results", Key=o["Key"])["Body"].read() for o in listed)
    return pa.concat_tables(pq.read_table(pa.BufferReader(body)) for body in bodies)


def test_from_bucket_to_bucket_and_again(bucket, track):
    first, _ = track("input=s3://cams/2024/", "output=s3://results/run")
    assert first == 3
    videos = rows(bucket, "run/videos/")
    assert sorted(videos["frames_decoded"].to_pylist()) == [9, 12]
    assert len(rows(bucket, "run/dead_letters/")) == 1
    tracks = rows(bucket, "run/tracks/")
    keys = tracks.select(["video_id", "frame_index", "track_id"])
    assert len(tracks) == len(keys.group_by(keys.column_names).aggregate([])) > 0
    again, _ = track("input=s3://cams/2024/", "output=s3://results/run")
    assert again == 3
    assert rows(bucket, "run/tracks/").equals(tracks)


@pytest.mark.parametrize(
    ("source", "said"),
    [("s3://no-such-bucket/2024/", "no-such-bucket"), ("s3://cams/1999/", "s3://cams/1999")],
)
def test_a_missing_bucket_or_prefix_is_an_error_that_names_it(track, tmp_path, source, said):
    code, error = track(f"input={source}", f"output={tmp_path / 'out'}")
    assert code == 1
    assert said in error
    assert not (tmp_path / "out" / "videos").exists()


def test_no_credentials_is_an_error_with_a_remedy(track, tmp_path):
    code, error = track("input=s3://cams/2024/", f"output={tmp_path / 'out'}", credentials=False)
    assert code == 1
    assert "credentials" in error.lower()


def test_training_goes_on_from_a_bucket(endpoint, bucket, shards, tmp_path, monkeypatch):
    """Checkpoints, log and weights in S3; killed half-way, the curve is that of a local run."""
    monkeypatch.setitem(SIZES, "nano", TINY)
    credentials = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
    for name, value in {**credentials, "ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    local = TrainJob(
        shards=str(shards),
        output=str(tmp_path / "run"),
        imagenet="",
        clips=CLIPS,
        training=CONFIG,
        worker=WorkerConfig(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowConfig(enabled=False),
    )
    whole = []
    train(local, lambda p: whole.append(p.loss))

    class KilledError(Exception):
        pass

    def die_in_step_4(progress):
        if progress.step == 4:
            raise KilledError

    remote, rest = replace(local, output="s3://results/train"), []
    with pytest.raises(KilledError):
        train(remote, die_in_step_4)
    weights = train(remote, lambda p: rest.append((p.step, p.loss)))
    assert weights == "s3://results/train/vsdmot-nano.safetensors"
    # The last checkpoint before was that of step 2.
    assert [step for step, _ in rest] == [3, 4, 5, 6]
    assert [loss for _, loss in rest] == pytest.approx(whole[2:], rel=1e-5)
    found = {name.split("/")[-1] for name in S3FileSystem().find("results/train")}
    assert {"state.safetensors", "log.jsonl", "config.json"} < found
    log = S3FileSystem().cat("results/train/log.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5, 6]
