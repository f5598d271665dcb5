"""The log of a training: `log.jsonl` in its folder, and MLflow.

The file has one line per step, and one for the score. Only the driver writes it; workers send their
figures to the driver. A resumed run continues the same file. Steps that are repeated after a
failure replace their earlier lines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from model.learn.training import Progress
from pipeline.training.run_folder import RECENT, RunFolder
from pipeline.training.worker import Score, Snapshot

if TYPE_CHECKING:
    from pipeline.runtime.mlflow_run import MlflowRun

LOG = "log.jsonl"
_EVERY = 10  # steps between points in MLflow, where each point costs a write
_WRITE_S = 30.0  # seconds between writes to a bucket, which takes whole files only


class TrainingLog:
    """Writes the log. It is a context manager, which closes file and MLflow run.

    Args:
        folder: folder of the run.
        mlflow: the MLflow run; None for no MLflow.
        config: resolved settings, for MLflow.
    """

    def __init__(
        self,
        folder: RunFolder,
        mlflow: MlflowRun | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self._folder, self._mlflow = folder, mlflow
        self._file: IO[str] | None = None
        found = folder.read(LOG) or b""
        self._lines = _whole_lines(found)
        # A killed process may have left an incomplete last line.
        self._damaged = not found.endswith(b"\n") and len(found) > 0
        self._written = time.monotonic()
        last = self._lines[-1][0] if self._lines else 0
        if missed := [x for x in _whole_lines(folder.read(RECENT) or b"") if x[0] > last]:
            self._lines += missed
            self._damaged = False
            self._write()
        self._frames = 0
        self._seconds = 0.0
        if mlflow is not None:
            mlflow.params(config or {})

    def add_step(self, progress: Progress) -> None:
        """Log a step."""
        if self._damaged or (self._lines and self._lines[-1][0] >= progress.step):
            self._drop_from(progress.step)
        last = self._lines[-1][0] if self._lines else 0
        if progress.step > last + 1:
            # Workers that were killed may have sent steps that nobody received. A checkpoint
            # contains them, or the training would not go on after them.
            for step, line in _whole_lines(self._folder.read(RECENT) or b""):
                if last < step < progress.step:
                    self._add(step, line)
        self._add(progress.step, json.dumps(asdict(progress)))
        self._frames += progress.frames
        self._seconds += progress.seconds
        if self._mlflow is not None and progress.step % _EVERY == 0:
            rate = self._frames / max(1e-9, self._seconds)
            self._frames, self._seconds = 0, 0.0
            figures = {"loss": progress.loss, "learning_rate": progress.learning_rate}
            figures |= {"images_per_second": rate, **progress.terms}
            self._mlflow.metrics(figures, progress.step)

    def add_snapshot(self, step: int, snapshot: Snapshot) -> None:
        """Log a snapshot of the tracker, in MLflow only."""
        if self._mlflow is not None:
            self._mlflow.metrics(snapshot.figures, step)
            self._mlflow.file(f"snapshot-{step:07d}.png", snapshot.png)

    def add_score(self, score: Score) -> None:
        """Log the score at the end."""
        values = {"step": score.step, "frames_seen": score.frames, "score": score.figures}
        self._add(score.step, json.dumps(values))
        if self._mlflow is not None:
            figures = {f"score_{name}": value for name, value in score.figures.items()}
            self._mlflow.metrics(figures, score.step)

    def _add(self, step: int, line: str) -> None:
        self._lines.append((step, line))
        if not self._folder.remote:
            self._append(line)
        elif time.monotonic() - self._written > _WRITE_S:
            self._write()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._folder.remote and self._lines:
            self._write()
        if self._mlflow is not None:
            self._mlflow.close("FINISHED" if kind is None else "FAILED")

    def _append(self, line: str) -> None:
        if self._file is None:
            path = Path(self._folder.path(LOG))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
        self._file.write(line + "\n")
        self._file.flush()

    def _drop_from(self, step: int) -> None:
        """Drop the lines of a step and of later ones, which are repeated after a failure."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lines = [(at, line) for at, line in self._lines if at < step]
        self._damaged = False
        self._write()

    def _write(self) -> None:
        self._folder.write(LOG, "".join(f"{line}\n" for _, line in self._lines).encode())
        self._written = time.monotonic()


def _whole_lines(data: bytes) -> list[tuple[int, str]]:
    """Step and text of each line; an incomplete last line is dropped."""
    lines = []
    for line in data.decode(errors="replace").splitlines(keepends=True):
        if line.endswith("\n"):
            lines.append((int(json.loads(line)["step"]), line[:-1]))
    return lines


def open_mlflow(uri: str, experiment: str, warn: Callable[[str], None]) -> MlflowRun:
    """Open an MLflow run. MLflow is imported here, because training also runs without it."""
    from pipeline.runtime.mlflow_run import MlflowRun

    return MlflowRun(uri, experiment, warn)
