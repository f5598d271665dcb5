"""Settings of teaching: which teacher, and how distillation pulls."""

from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check

_Positive = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Which teacher.

    Attributes:
        model: an open_clip model such as ViT-B-16, the name of a file in configs/teachers/, or
            the path of a model JSON.
        pretrained: an open_clip tag such as openai; a local file; `package` for the weights of
            imagenet-lite2; `random` for speed tests.
    """

    model: str = "imagenet-lite2"
    pretrained: str = "package"


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """How distillation pulls.

    Attributes:
        share: of the gradient on the shared layers that is distillation's, beside the task's.
        local, pooled, relation: weights of the terms among themselves.
        box_weight: weight of a position inside an object's box; outside it is 1.
        box_score: score from which the tracker's own boxes count where there are no labels.
        temperature: of the similarities in the relation term; low looks at the nearest only.
    """

    share: Annotated[float, Range(0, 1, above=True, below=True)] = 0.12
    local: float = 1.0
    pooled: float = 0.5
    relation: float = 0.5
    box_weight: _Positive = 4.0
    box_score: float = 0.5
    temperature: _Positive = 0.1

    def __post_init__(self) -> None:
        check(self)
