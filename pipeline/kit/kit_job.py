"""The settings of `vsdmot kit`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.learn.training_config import STEPS, TrainingConfig
from model.settings import NotEmpty, Range, check
from pipeline.clips.config import ClipConfig, SinglesConfig
from pipeline.training.config import Part
from pipeline.training.train_job import check_singles


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage of the training.

    Attributes:
        share: time of this stage relative to the shares of the other stages.
        learn: parts of the student that are trained, while all other weights stay as they are;
            empty: the whole student.
        clips: contents of the training clips.
        singles: steps on single frames between those on clips.
        training: optimizer and schedule; `run.py --minutes` gives the budget.
    """

    share: Annotated[float, Range(0, above=True)] = 0.5
    learn: tuple[Part, ...] = ()
    clips: ClipConfig = ClipConfig()
    singles: SinglesConfig = SinglesConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        check(self)
        check_singles(self.singles, self.clips, self.learn)


@dataclass(frozen=True, slots=True)
class KitJob:
    """Settings of `vsdmot kit`.

    Attributes:
        output: folder for the kit, inside the folder from which files are copied to the GPU
            machine.
        shards: folder of shards, made by vsdmot pack.
        start: weights file to start from.
        state: training state to resume in the first stage: NAME.state.safetensors of vsdmot
            kit-back, or state.safetensors of a run; empty: a new training.
        stages: stages to train, in this order.
        part_mb: greatest size of a part of the kit, in 10^6 bytes; each call copies one part.
        device: device of the training; cpu is for a test of the kit.
        detection: the stage that trains on single frames.
        tracking: the stage that trains on clips.
    """

    job: ClassVar[str] = "kit"
    about: ClassVar[str] = (
        "Make a folder, in parts to copy, from which a machine with a GPU can train."
    )

    output: str = "runs/kit"
    shards: str = "runs/shards"
    start: str = "weights/vsdmot-nano.safetensors"
    state: str = ""
    stages: Annotated[tuple[Literal["detection", "tracking"], ...], NotEmpty()] = (
        "detection",
        "tracking",
    )
    part_mb: float = 40.0
    device: Literal["cuda", "cpu"] = "cuda"
    detection: StageConfig = StageConfig()
    tracking: StageConfig = StageConfig()

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.stages)) < len(self.stages):
            raise ValueError("stages must name each stage once: [detection, tracking]")
        for name, stage in self.chosen.items():
            _check_stage(name, stage)

    @property
    def chosen(self) -> dict[str, StageConfig]:
        """The stages to train, in order."""
        return {name: getattr(self, name) for name in self.stages}


def _check_stage(name: str, stage: StageConfig) -> None:
    if stage.training.minutes or stage.training.steps != STEPS:
        raise ValueError(
            f"{name}.training: run.py --minutes gives the budget; leave minutes and steps out"
        )
    contents = {f"{name}.clips": stage.clips, f"{name}.singles.clips": stage.singles.clips}
    for place, clips in contents.items():
        if "codec" in clips.kinds:
            raise ValueError(
                f"{place}.kinds: codec needs PyAV, which a kit must not need; leave codec out"
            )
        if stage.training.compile and len(clips.canvases()) > 1:
            raise ValueError(
                f"{name}.training.compile: the model would be compiled again for each of the "
                f"{len(clips.canvases())} canvas sizes; give {place}.heights=null, or leave "
                "compile out"
            )
