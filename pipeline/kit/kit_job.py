"""The settings of `vsdmot kit`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.learn.training_config import STEPS, TrainingConfig
from model.settings import NotEmpty, Range, check
from pipeline.clips.config import ClipConfig
from pipeline.training.config import Part


@dataclass(frozen=True, slots=True)
class StageConfig:
    """Settings of one stage.

    Attributes:
        share: of the minutes there are for training, beside the shares of the other stages.
        learn: parts of the weights to train alone, as in vsdmot train; empty trains everything.
        clips: how clips are drawn.
        training: how the student is trained; its time comes from the command there.
    """

    share: Annotated[float, Range(0, above=True)] = 0.5
    learn: tuple[Part, ...] = ()
    clips: ClipConfig = ClipConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class KitJob:
    """Settings of `vsdmot kit`.

    Attributes:
        output: folder for the kit, below the folder that is carried to the machine.
        shards: folder of shards that vsdmot pack made.
        start: weights to start from.
        state: training state that the first stage goes on from, of vsdmot kit-back or of a run's
            folder; empty starts anew.
        stages: which are trained, in this order.
        part_mb: size of a part at most, in 10^6 bytes; a call carries it beside the repository.
        device: cpu is for a rehearsal.
        detection: single frames.
        tracking: clips.
    """

    job: ClassVar[str] = "kit"
    about: ClassVar[str] = "Make a folder that a bare GPU machine trains from, in parts to carry."

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
        """The stages that are trained, in order."""
        return {name: getattr(self, name) for name in self.stages}


def _check_stage(name: str, stage: StageConfig) -> None:
    if stage.training.minutes or stage.training.steps != STEPS:
        raise ValueError(
            f"{name}.training: minutes and steps come from run.py --minutes; leave them out"
        )
    if "codec" in stage.clips.kinds:
        raise ValueError(f"{name}.clips.kinds: codec needs PyAV, which is not there; leave it out")
    if stage.training.compile and len(stage.clips.canvases()) > 1:
        raise ValueError(
            f"{name}.training.compile: each of {len(stage.clips.canvases())} canvases would be "
            f"compiled anew; give {name}.clips.heights=null, or do not compile"
        )
