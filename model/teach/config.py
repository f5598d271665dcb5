"""Settings of distillation: the teacher, and the terms of the loss."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from model.settings import Range, check

SELF, STUDENT, YOLOX, REID = "self", "student", "yolox", "reid"
"""Values of `teacher.model` that are no models of open_clip."""
_Positive = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """The teacher whose features the student learns.

    Attributes:
        model: name of the teacher. self: the average of the student's own weights. student: a
            student with fixed weights. yolox: the features of a detector. reid: a network that
            tells labelled people apart. Else an open_clip model such as ViT-B-16, a file in
            configs/teachers/, or the path of a model JSON.
        pretrained: weights of the teacher: a .safetensors file for student, an .onnx file for
            yolox and reid; for a model of open_clip a tag such as openai, or a local file;
            `package` takes the weights of imagenet-lite2; `random` is for speed tests.
        scale: sides of the clean picture that the teacher sees, as a multiple of the student's,
            such as 1.5.
    """

    model: str = "imagenet-lite2"
    pretrained: str = "package"
    scale: Annotated[float, Range(1, 2)] = 1.0

    def __post_init__(self) -> None:
        check(self)

    @property
    def moves(self) -> bool:
        """Whether the teacher changes while the student learns from it."""
        return self.model == SELF

    def located(self) -> Self:
        """The same with absolute paths, for workers in other processes."""
        files = absolute_file(self.model), absolute_file(self.pretrained)
        return replace(self, model=files[0], pretrained=files[1])


def absolute_file(name: str) -> str:
    """Absolute path of a local file; names of models, tags and URLs stay as they are."""
    return str(Path(name).absolute()) if name and Path(name).is_file() else name


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
