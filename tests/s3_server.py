"""A real S3 server on loopback: moto in a process of its own."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import BotoCoreError


def s3_client(url: str, secret: str = "test"):
    """A client of the server at `url`; it takes any key."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )


@contextmanager
def s3_server() -> Iterator[str]:
    """Start the server, give its address when it answers, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                s3_client(url).list_buckets()
                break
            except BotoCoreError:
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)
