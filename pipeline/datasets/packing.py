"""Turn labelled video and labelled stills into training shards."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.datasets.layouts import PICTURES, picture_files
from pipeline.datasets.mot import PEDESTRIAN, Sequence
from pipeline.datasets.shards import (
    SPLITS,
    LabelledFrame,
    LabelledSequence,
    ShardWriter,
    encode_picture,
)
from pipeline.video.by_index import read_frames
from pipeline.video.decode import DecodeError

# MOT16's numbering: person on vehicle, static person, distractor, reflection. They look like
# people, are not to be found, and must not be taught as background either.
_LOOKALIKES = (2, 7, 8, 12)
_HIDDEN = 0.15  # of a person less than this is seen: not to be learned from
_CHUNK = 64
# What Pillow raises for files that are damaged, or not there.
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError)


class PackError(ValueError):
    """Training data that cannot be packed; the message names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class KnownSources:
    """What is known of sources by their names, as glob patterns.

    A source is the name of a sequence, or `images[].source` of a still.

    Attributes:
        poor: pictures are not known to be clean.
        squeezed: pictures have lost their proportions.
    """

    poor: tuple[str, ...] = ()
    squeezed: tuple[str, ...] = ()

    def is_clean(self, source: str) -> bool:
        """Whether pictures of a source are known to be clean."""
        return not any(fnmatchcase(source, pattern) for pattern in self.poor)

    def is_squeezed(self, source: str) -> bool:
        """Whether pictures of a source have lost their proportions."""
        return any(fnmatchcase(source, pattern) for pattern in self.squeezed)


def pack_sequence(
    sequence: Sequence,
    writer: ShardWriter,
    longest: int,
    known: KnownSources,
    advance: Callable[[int], None],
) -> list[str]:
    """Add one MOTChallenge sequence to train on, its class person as label 0.

    Args:
        sequence: with its ground truth.
        writer: where to.
        longest: longer side of the stored pictures in pixels.
        known: what is known of sources.
        advance: called with the number of frames done.

    Returns:
        a line for each picture that could not be read and is left out, or one for a video: what
        could be read of it is left out too.

    Raises:
        PackError: the folder holds fewer pictures than seqinfo.ini says.
        StorageError: the video cannot be read from where it lies.
    """
    frames: list[LabelledFrame] = []
    pictures: dict[str, bytes] = {}
    problems: list[str] = []
    try:
        for start in range(0, sequence.length, _CHUNK):
            indices = range(start, min(start + _CHUNK, sequence.length))
            for index, pixels in _read(sequence, indices, problems):
                data, factor = encode_picture(pixels, longest)
                name = f"{index:06d}.webp"
                pictures[name] = data
                frames.append(_label(sequence, index, name, factor))
            advance(len(indices))
    except DecodeError as error:
        return [str(error)]
    if frames:
        packed = LabelledSequence(
            name=sequence.name,
            source=sequence.name,
            split="train",
            fps=sequence.frame_rate,
            clean=known.is_clean(sequence.name),
            extent="whole",
            squeezed=known.is_squeezed(sequence.name),
            frames=frames,
        )
        writer.add(packed, pictures)
    return problems


def _read(
    sequence: Sequence, indices: range, problems: list[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, picture (h, w, 3)); a picture file that cannot be read is a problem."""
    if sequence.video.is_file():
        frames = read_frames(str(sequence.video), indices, sequence.width, sequence.height)
        yield from zip(indices, frames, strict=True)
        return
    files = picture_files(sequence.video)
    if len(files) < sequence.length:
        # Which one is missing cannot be told, so labels would go to wrong pictures.
        raise PackError(
            f"{sequence.name}: {sequence.video} holds {len(files)} pictures "
            f"({', '.join(PICTURES)}), seqinfo.ini says {sequence.length} (seqLength); add those "
            "missing, or correct seqLength"
        )
    for index in indices:
        try:
            yield index, np.asarray(Image.open(files[index]).convert("RGB"))
        except _UNREADABLE as error:
            problems.append(f"{files[index]}: not a readable picture ({error})")


def _label(sequence: Sequence, index: int, name: str, factor: float) -> LabelledFrame:
    gt = sequence.gt.at(index + 1)
    gt = gt[np.isin(gt.class_id, (PEDESTRIAN, *_LOOKALIKES))]
    ignore = (gt.class_id != PEDESTRIAN) | (gt.confidence == 0) | (gt.visibility < _HIDDEN)
    return LabelledFrame(
        name,
        np.round(gt.xywh * factor, 2).tolist(),
        gt.track_id.tolist(),
        [0] * len(gt),
        ignore.tolist(),
    )


def pack_coco(
    annotations: str | Path,
    writer: ShardWriter,
    longest: int,
    known: KnownSources,
    advance: Callable[[int], None],
) -> list[str]:
    """Add the stills of a COCO file, its category 1 as label 0.

    Args:
        annotations: COCO JSON; pictures lie beside it in `images/`. `iscrowd` or `ignore` boxes
            become ignored ones. `images[].split` is `train`, the default, or `val`.
        writer: where to.
        longest: longer side in pixels; smaller WebP pictures are taken as they are.
        known: what is known of sources, `images[].source`.
        advance: called with the number of stills done.

    Returns:
        a line for each picture that could not be read and is left out.

    Raises:
        PackError: the file cannot be read, or an image has another split.
    """
    annotations = Path(annotations)
    try:
        block = json.loads(annotations.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise PackError(f"{annotations}: not readable as COCO JSON ({error})") from error
    boxes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in block["annotations"]:
        if entry["category_id"] == 1:
            boxes[entry["image_id"]].append(entry)
    problems: list[str] = []
    for image in block["images"]:
        path = annotations.parent / "images" / image["file_name"]
        split, source = image.get("split", "train"), image.get("source", annotations.parent.name)
        if split not in SPLITS:
            raise PackError(
                f"{annotations}: {image['file_name']}: split is {split!r}; "
                f"expected one of {', '.join(SPLITS)}, or none for train"
            )
        advance(1)
        try:
            data, factor = _still(path, longest)
        except _UNREADABLE as error:
            problems.append(f"{path}: not a readable picture ({error})")
            continue
        packed = LabelledSequence(
            name=path.stem,
            source=source,
            split=split,
            fps=0.0,
            clean=known.is_clean(source),
            extent="seen",
            squeezed=known.is_squeezed(source),
            frames=[_label_still(path.name, boxes[image["id"]], factor)],
        )
        writer.add(packed, {path.name: data})
    return problems


def _label_still(name: str, labels: list[dict[str, Any]], factor: float) -> LabelledFrame:
    return LabelledFrame(
        name,
        [[round(v * factor, 2) for v in entry["bbox"]] for entry in labels],
        list(range(len(labels))),
        [0] * len(labels),
        [bool(entry.get("ignore") or entry.get("iscrowd")) for entry in labels],
    )


def _still(path: Path, longest: int) -> tuple[bytes, float]:
    with Image.open(path) as image:
        if image.format == "WEBP" and max(image.size) <= longest:
            image.load()  # what is taken as it is has to be whole too
            return path.read_bytes(), 1.0
        return encode_picture(np.asarray(image.convert("RGB")), longest)
