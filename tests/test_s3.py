"""The job against a real S3 server process: buckets as archive and as output."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import BotoCoreError

from model.checkpoint import CheckpointMetadata, save_tracker
from tests.tiny import TINY, tiny_tracker
from tests.videos import write_text, write_video

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def endpoint():
    """Address of a moto server in a process of its own, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client(url).list_buckets()
                break
            except BotoCoreError:
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)


def client(url):
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


@pytest.fixture(scope="module")
def bucket(endpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    s3 = client(endpoint)
    s3.create_bucket(Bucket="cams")
    s3.create_bucket(Bucket="results")
    write_video(folder / "a.mp4", frames=12)
    write_video(folder / "b.mp4", frames=9)
    write_text(folder / "text.mp4")
    for path in folder.iterdir():
        s3.upload_file(str(path), "cams", f"2024/yard one/{path.name}")
    return s3


def track(endpoint, tmp_path, *arguments, credentials=True):
    weights = tmp_path / "tiny.safetensors"
    save_tracker(weights, tiny_tracker(lively=True), CheckpointMetadata(model=TINY))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {"AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    environment |= {"HOME": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1"}
    if credentials:
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    command = [sys.executable, "-m", "jobs.track", f"weights={weights}", "mlflow.enabled=false"]
    return subprocess.run(
        [*command, "cluster.workers=0", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def rows(s3, prefix):
    listed = s3.list_objects_v2(Bucket="results", Prefix=prefix).get("Contents", [])
    bodies = (s3.get_object(Bucket="results", Key=o["Key"])["Body"].read() for o in listed)
    return pa.concat_tables(pq.read_table(pa.BufferReader(body)) for body in bodies)


def test_from_bucket_to_bucket_and_again(endpoint, bucket, tmp_path):
    first = track(endpoint, tmp_path, "input=s3://cams/2024/", "output=s3://results/run")
    assert first.returncode == 3, first.stdout + first.stderr
    videos = rows(bucket, "run/videos/")
    assert sorted(videos["frames_decoded"].to_pylist()) == [9, 12]
    assert len(rows(bucket, "run/dead_letters/")) == 1
    tracks = rows(bucket, "run/tracks/")
    keys = duckdb.sql(
        "select count(*), count(distinct (video_id, frame_index, track_id)) from tracks"
    )
    total, distinct = keys.fetchone()
    assert total == distinct > 0
    again = track(endpoint, tmp_path, "input=s3://cams/2024/", "output=s3://results/run")
    assert again.returncode == 3
    assert rows(bucket, "run/tracks/").equals(tracks)


@pytest.mark.parametrize(
    ("source", "said"),
    [("s3://no-such-bucket/2024/", "no-such-bucket"), ("s3://cams/1999/", "s3://cams/1999")],
)
def test_a_missing_bucket_or_prefix_is_an_error_that_names_it(
    endpoint, bucket, tmp_path, source, said
):
    done = track(endpoint, tmp_path, f"input={source}", f"output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "out" / "videos").exists()


def test_no_credentials_is_an_error_with_a_remedy(endpoint, bucket, tmp_path):
    arguments = "input=s3://cams/2024/", f"output={tmp_path / 'out'}"
    done = track(endpoint, tmp_path, *arguments, credentials=False)
    assert done.returncode == 1
    assert "credentials" in done.stderr.lower()
