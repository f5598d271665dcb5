"""The settings of `vsdmot measure`."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.net.config import CanvasSide
from model.settings import Device, NotEmpty, Range, check
from pipeline.degrade.kinds import KINDS, Kind

FRAMES = 12
"""Frames of each sequence for most measures, if their number is not given."""

Gate = Literal["learned", "off", "constant", "random", "oracle"]
Part = Literal["semantics", "stride8", "stride16", "stride32", "maps"]
Severity = Annotated[int, Range(1, 5)]


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """Settings of `vsdmot measure`.

    Attributes:
        what: ability to measure.
        data: folder with sequences in MOTChallenge layout, at any depth; `make measure DATA=FOLDER`
            takes FOLDER/sequences/val. Empty: no sequences, which detection and degraded allow.
        weights: weights file of the student; semantics also needs its projectors, the file
            NAME.distiller.safetensors in the same folder.
        output: folder or URL for the results.
        stills: for detection and degraded: COCO file of stills that has a split for each image,
            with the pictures in the folder images/ beside it; empty: no stills.
        pictures: for detection: number of stills of split train, evenly by source; null: as many
            as split val has. For degraded: greatest number of stills that are degraded, evenly by
            source, and of poor ones; null: all.
        stride: for detection, degraded and cuts: distance between the measured frames of a
            sequence, in frames; 1 measures all; null is 4 for detection, 10 for degraded, 1 for
            cuts.
        canvas: for detection: height and width of the students' canvas in pixels, which shows
            whether they were trained at the size that they run at; null: that of their weights.
        students: for detection and degraded: further students, NAME@WEIGHTS each.
        detectors: for detection and degraded: detectors of other projects, NAME@FILE each: a YOLOX
            .onnx or an OpenVINO SSD .xml.
        gates: for degraded: gates that each student is measured with: its own, or one that is off
            or gets a constant quality, a random one, or that of the true severity.
        clean: for degraded: parts of what each student sees that are also taken from the clean
            picture, one at a time. The score bounds what distillation of the part can give:
            semantics (map and scene vector), the encoder's map of one stride, or all its maps.
        clean_age: for degraded with clean: how many frames before the measured one the clean
            picture is, so that the score bounds what memory of better frames can give. It needs
            sequences alone.
        control: for degraded: what all others are compared with, NAME or NAME:GATE; empty: the
            student of weights, with the first of the gates.
        severities: for degraded, cuts and trust: severities of the degradations.
        poor: for degraded: sources of stills that are of real poor footage; they are shown as they
            are, in rows of their own. Of a source without stills of split val, those of split
            train are taken.
        fit: for trust: file that a model of trust is written to, which is fitted to the tracks of
            the sequences; NAME.trust.json beside NAME.safetensors is used by vsdmot track. Empty:
            the model beside weights is measured.
        minutes: for split: length of the recording that is made of the sequences.
        windows: for split: numbers of windows.
        overlap_s: for split: seconds of video that two windows share.
        gaps_s: for reid: values of reid.max_gap_s. For evidence: the greatest counts.
        frames: for semantics and quality: number of frames of each sequence, in groups of four
            successive frames. For still: number of frames of each sequence that quiet video is made
            of, five times as many. For cuts: number of frames of each sequence that are degraded.
            For trust: number of frames of each sequence that each degradation is shown on. null is
            60 for trust, 12 for the others.
        apart: names of sequences that are left out of the rows over all sequences; degraded shows
            them as they are; cuts leaves them out of what is strung together; trust and split leave
            them out.
        kinds: for semantics, quality, degraded, cuts and trust: kinds of degradation.
        teacher: for semantics: teacher.model of the distillation of the student.
        pretrained: for semantics: teacher.pretrained of the distillation of the student.
        device: device of the student.
        threads: CPU threads.
    """

    job: ClassVar[str] = "measure"
    about: ClassVar[str] = (
        "Measure one ability of a student. detection: AP on stills and single frames, beside "
        "other detectors. semantics: similarity of its features on degraded frames to the "
        "teacher's features on clean frames. quality: rank correlation of its quality with the "
        "severity of degradations. still: scores with and without still.skip, on the sequences "
        "and on mostly quiet video made of them. cuts: shot cuts found in the sequences, where "
        "there is none, and where stretches of them are strung together. degraded: AP50 of "
        "students under degradations, on the same pixels, with intervals of their differences. "
        "split: what tracking in windows "
        "costs, on a long recording made of the sequences. reid: who keeps the id after an "
        "absence, on the sequences with a black stretch in each. evidence: what tells that a "
        "person is back, clean and degraded, with weights for it. looks: whether its memory of "
        "tracks and their colours tell people apart. trust: whether the trust in tracks is right."
    )

    what: Literal[
        "detection",
        "semantics",
        "quality",
        "still",
        "cuts",
        "degraded",
        "split",
        "reid",
        "evidence",
        "looks",
        "trust",
    ]
    data: str
    weights: str = "weights/vsdmot-nano.safetensors"
    output: str = "runs/measure"
    stills: str = ""
    pictures: Annotated[int, Range(0)] | None = None
    stride: Annotated[int, Range(1)] | None = None
    canvas: tuple[CanvasSide, CanvasSide] | None = None
    students: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    gates: Annotated[tuple[Gate, ...], NotEmpty()] = ("learned",)
    clean: tuple[Part, ...] = ()
    clean_age: Annotated[int, Range(0)] = 0
    control: str = ""
    fit: str = ""
    severities: Annotated[tuple[Severity, ...], NotEmpty()] = (3, 5)
    poor: tuple[str, ...] = ()
    minutes: Annotated[float, Range(0, math.inf, above=True, below=True)] = 20.0
    windows: Annotated[tuple[Annotated[int, Range(2)], ...], NotEmpty()] = (2, 4, 8)
    overlap_s: Annotated[float, Range(0, math.inf, above=True, below=True)] = 4.0
    gaps_s: Annotated[tuple[Annotated[float, Range(0)], ...], NotEmpty()] = (0.0, 5.0, 30.0)
    frames: Annotated[int, Range(1)] | None = None
    apart: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS
    teacher: str = "imagenet-lite2"
    pretrained: str = "package"
    device: Device = "cpu"
    threads: Annotated[int, Range(1)] = 1

    def __post_init__(self) -> None:
        check(self)
