"""One MLflow run, written by the driver alone in a thread of its own.

Calls go through a queue to the thread, which also does MLflow's slow import. If MLflow fails, one
warning is given, the lost calls are counted, and the job goes on.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.storage.secrets import mask_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

Call = Callable[["MlflowClient", str], None]

_PENDING = 1000
_PARAMS_REQUEST = 100  # MLflow's limit per request
_CLOSE_WITHIN_S = 30.0


class MlflowRun:
    """One MLflow run.

    Args:
        uri: Tracking store or server, e.g. "sqlite:///mlflow.db" or "http://host:5000".
        experiment: The experiment's name; made if missing.
        warn: Called once, with the reason, when MLflow does not work.

    Attributes:
        dropped: Number of lost calls.
    """

    def __init__(self, uri: str, experiment: str, warn: Callable[[str], None]) -> None:
        """Start the thread without waiting for MLflow."""
        self.dropped = 0
        self._uri, self._experiment, self._warn = uri, experiment, warn
        self._warned = False
        self._calls: queue.Queue[Call | None] = queue.Queue(_PENDING)
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def params(self, params: Mapping[str, object]) -> None:
        """Log settings; secrets are masked."""
        from_text = {key: mask_secrets(str(value))[:6000] for key, value in params.items()}

        def call(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import Param

            entries = [Param(key, value) for key, value in from_text.items()]
            for start in range(0, len(entries), _PARAMS_REQUEST):
                client.log_batch(run_id, params=entries[start : start + _PARAMS_REQUEST])

        self._put(call)

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values at a step, with the current time."""
        now_ms = int(time.time() * 1000)

        def call(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import Metric

            client.log_batch(
                run_id, metrics=[Metric(key, v, now_ms, step) for key, v in metrics.items()]
            )

        self._put(call)

    def file(self, name: str, data: bytes) -> None:
        """Attach a file under its name."""

        def call(client: MlflowClient, run_id: str) -> None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                path.write_bytes(data)
                client.log_artifact(run_id, str(path))

        self._put(call)

    def close(self, status: str) -> None:
        """End the run as "FINISHED", "FAILED" or "KILLED"; waits for half a minute at most."""
        until = time.monotonic() + _CLOSE_WITHIN_S
        self._put(lambda client, run_id: client.set_terminated(run_id, status))
        with suppress(queue.Full):  # the thread hangs, which is reported below
            self._calls.put(None, timeout=_CLOSE_WITHIN_S)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._lose(self._calls.qsize(), f"did not answer within {_CLOSE_WITHIN_S:.0f} s")

    def _put(self, call: Call) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._lose(1, "does not keep up")

    def _lose(self, calls: int, reason: str) -> None:
        self.dropped += calls
        if not self._warned:
            self._warned = True
            self._warn(
                f"the MLflow log at {mask_secrets(self._uri)} {mask_secrets(reason)}; the job goes "
                "on without it (mlflow.enabled=false turns it off)"
            )

    def _run(self) -> None:
        client, run_id, failure = None, "", ""
        try:
            client, run_id = _open(self._uri, self._experiment)
        except Exception as error:  # no error of MLflow may stop a job
            failure = f"cannot be opened: {type(error).__name__}: {error}"
        while (call := self._calls.get()) is not None:
            if client is None:
                self._lose(1, failure)
                continue
            try:
                call(client, run_id)
            except Exception as error:  # as above
                self._lose(1, f"failed: {type(error).__name__}: {error}")


def _open(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    # By default MLflow retries for many minutes; a job must not wait for that at its end.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    # MLflow would report its use to its makers, over the network.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(
        logging.WARNING
    )  # it prints a line for each table of a new store
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    # Artifacts of a store in a file lie beside it. MLflow's default is the working directory.
    artifacts = None
    if uri.startswith("sqlite:///"):
        artifacts = (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlruns").as_uri()
    experiment_id = (
        found.experiment_id if found else client.create_experiment(experiment, artifacts)
    )
    return client, client.create_run(experiment_id).info.run_id
