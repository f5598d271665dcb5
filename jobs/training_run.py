"""A training with its log, the same for every job that trains.

Nothing here needs more than PyTorch and its friends; MLflow is imported where it is enabled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from model.learn.training import Progress
from pipeline.training.fit import fit
from pipeline.training.log import TrainingLog, open_mlflow
from pipeline.training.run_folder import RunFolder
from pipeline.training.work import ClusterSettings, Fit, Score


@dataclass(frozen=True, slots=True)
class MlflowSettings:
    """Where the training is logged. None of it changes results.

    Attributes:
        enabled: log settings, losses and pictures to MLflow.
        uri: MLflow store or server; the default is a file here, the one `mlflow ui` opens.
        experiment: MLflow experiment, made if missing.
        picture_every: steps between looks at the tracker: a picture and figures of the gate.
    """

    enabled: bool = True
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "vsdmot"
    picture_every: int = 100

    def __post_init__(self) -> None:
        if self.picture_every < 1:
            raise ValueError(f"mlflow.picture_every must be at least 1, got {self.picture_every}")


def fit_logged(
    what: Fit,
    cluster: ClusterSettings,
    mlflow: MlflowSettings,
    settings: Mapping[str, Any],
    watch: Callable[[Progress], None],
    warn: Callable[[str], None],
) -> dict[str, float]:
    """`pipeline.training.fit.fit`, with `log.jsonl` in the output and, where enabled, MLflow.

    Args:
        what, cluster, watch: see `fit`.
        mlflow: where it is logged.
        settings: of the job, nested, for MLflow.
        warn: told once if MLflow cannot be reached.

    Returns:
        the figures of the score at the end, none without one.

    Raises:
        TrainingError: see `fit`.
        StorageError: the output cannot be reached.
    """
    run = open_mlflow(mlflow.uri, mlflow.experiment, warn) if mlflow.enabled else None
    with TrainingLog(RunFolder(what.output), run, _flat(settings)) as log:
        figures: dict[str, float] = {}

        def record(progress: Progress) -> None:
            log.watch(progress)
            watch(progress)

        def scored(score: Score) -> None:
            log.scored(score)
            figures.update(score.figures)

        fit(what, cluster, record, log.show if run else None, scored)
        return figures


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat
