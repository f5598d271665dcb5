"""An S3 server on loopback: moto in a process of its own, for measures and tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.speed.one_core import MeasureError

_START_S = 120.0


def s3_client(url: str, secret: str = "test") -> Any:
    """A boto3 client of the server at `url`, which takes any key."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )


@contextmanager
def s3_server() -> Iterator[str]:
    """Start the server, give its address when it answers, and end it.

    Raises:
        MeasureError: It did not answer.
    """
    from botocore.exceptions import BotoCoreError

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                s3_client(url).list_buckets()
                break
            except BotoCoreError as error:
                if time.monotonic() > deadline:
                    raise MeasureError(f"the S3 server at {url} did not start: {error}") from error
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)
