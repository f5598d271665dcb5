"""An MLflow server that is down, or takes calls and never answers: the job does not wait for it."""

import socket
import time

import pytest


@pytest.mark.parametrize("server", ["down", "hangs"])
def test_mlflow(drivers, command, holds, stopwatch, tmp_path, server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if server == "hangs":
            listener.listen(64)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        argv = [*command(tmp_path), "mlflow.enabled=true", f"mlflow.uri={uri}"]
        started = time.monotonic()
        faults = ("probe_here", ()), ("log_closes_within", (3,))
        code, said = drivers.run(argv, *faults, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
        seconds = time.monotonic() - started
    assert code == 3, said
    assert said.count("the job goes on without it") == 1
    assert "entries of the MLflow log were lost" in said
    assert seconds < 60
    holds(tmp_path, f"MLflow {server}", stopwatch())
