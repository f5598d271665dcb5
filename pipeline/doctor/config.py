"""The settings of `vsdmot doctor`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from model.settings import NotEmpty, Range, check
from pipeline.runtime.settings import ClusterConfig, MlflowConfig


@dataclass(frozen=True, slots=True)
class DoctorConfig:
    """Settings of `vsdmot doctor`.

    Attributes:
        input: archive that is to be tracked, as of vsdmot track; empty: none is looked at.
        output: folder or URL that is to be written; empty: none is looked at. A small file is
            written there and removed.
        weights: the student's checkpoint: a path or a URL.
        seconds: time for each check; one that takes longer is a problem.
        only: names of checks to make, such as codecs; empty: all.
        json: print JSON instead of text.
        cluster: where the work would run.
        mlflow: where the run would be logged.
    """

    job: ClassVar[str] = "doctor"
    about: ClassVar[str] = (
        "Check this machine, the cluster, storage and log that a run would use, and say what to do."
    )

    input: str = ""
    output: str = ""
    weights: Annotated[str, NotEmpty()] = "weights/vsdmot-nano.safetensors"
    seconds: Annotated[float, Range(0, math.inf, above=True, below=True)] = 120.0
    only: tuple[str, ...] = ()
    json: bool = False
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
