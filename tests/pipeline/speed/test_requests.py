"""Requests of a video to a bucket, counted at an S3 server: the model of the schedule uses them."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest
from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from jobs.track import main
from pipeline.speed.archives.s3_server import s3_client
from pipeline.speed.scaling import REQUESTS_VIDEO, requests
from tests.videos import write_video

FEW, MANY = 2, 6
# Werkzeug colours the lines of answers other than 200.
REQUEST = re.compile(r'"(?:\x1b\[[\d;]*m)*[A-Z]+ \S+ HTTP')


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A client of a new server, and a function that gives the number of requests so far."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    for name, value in (settings | {"DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    client = s3_client(url)
    for _ in range(400):
        try:
            client.list_buckets()
            break
        except BotoCoreError:
            time.sleep(0.3)
    yield client, lambda: len(REQUEST.findall(log.read_text()))
    process.terminate()
    process.wait(timeout=10)
    S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_video_makes_as_many_requests_as_the_model_takes(server, weights, tmp_path):
    client, count = server
    data = write_video(tmp_path / "v.mp4", frames=8).read_bytes()
    client.create_bucket(Bucket="cams")
    client.create_bucket(Bucket="results")
    made = {}
    for videos in (FEW, MANY):
        for n in range(videos):
            client.put_object(Bucket="cams", Key=f"{videos}/{n}.mp4", Body=data + bytes([n]))
        before = count()
        given = f"input=s3://cams/{videos}/", f"output=s3://results/{videos}", f"weights={weights}"
        assert main([*given, "mlflow.enabled=false", "report=false", "cluster.workers=0"]) == 0
        made[videos] = count() - before
    each = (made[MANY] - made[FEW]) / (MANY - FEW)
    assert each == pytest.approx(requests(len(data)), abs=1)
    assert requests(1) == REQUESTS_VIDEO + 1
