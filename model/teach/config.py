"""Settings of distillation: the teacher, and the terms of the loss."""

from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check

_Positive = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """The teacher whose features the student learns.

    Attributes:
        model: name of the teacher: an open_clip model such as ViT-B-16, a file in
            configs/teachers/, or the path of a model JSON.
        pretrained: weights of the teacher: an open_clip tag such as openai, or a local file;
            `package` takes the weights of imagenet-lite2; `random` is for speed tests.
    """

    model: str = "imagenet-lite2"
    pretrained: str = "package"


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """The distillation loss.

    Attributes:
        share: share of distillation in the gradient on the layers that it shares with tracking.
        local: weight of the local term, which compares student and teacher position by position.
        pooled: weight of the pooled term, which compares one feature vector per frame.
        relation: weight of the relation term, which compares the similarities between frames.
        box_weight: weight of a position inside the box of an object; a position outside has 1.
        box_score: least score of a box of the student that distillation.box_weight applies to,
            on frames without labels.
        temperature: temperature of the relation term; a lower one lets only the most similar
            frames count.
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
