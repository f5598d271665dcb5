"""Pack labelled video and labelled stills into training shards."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    fits_any,
)
from pipeline.video.by_index import read_frames
from pipeline.video.errors import DecodeError

# MOT16's numbering: person on vehicle, static person, distractor, reflection. They look like
# people, so they are ignored in training: neither objects nor background.
_LOOKALIKES = (2, 7, 8, 12)
_HIDDEN = 0.15  # people with a lower visibility are ignored in training
_CHUNK = 64
# What Pillow raises for files that are damaged or missing.
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError)


class PackError(ValueError):
    """Training data that cannot be packed; the message names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class KnownSources:
    """Properties of sources, as glob patterns of their names.

    A source is the name of a sequence, or `images[].source` of a still.

    Attributes:
        poor: sources whose pictures are not known to be clean.
        squeezed: sources whose pictures have lost their aspect ratio.
        loose: sources of stills whose boxes are too large or beside people.
    """

    poor: tuple[str, ...] = ()
    squeezed: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    def is_clean(self, source: str) -> bool:
        """Whether pictures of a source are known to be clean."""
        return not fits_any(source, self.poor)

    def is_squeezed(self, source: str) -> bool:
        """Whether pictures of a source have lost their aspect ratio."""
        return fits_any(source, self.squeezed)

    def extent_of_stills(self, source: str) -> str:
        """What boxes of stills of a source show, one of `EXTENTS`."""
        return "loose" if fits_any(source, self.loose) else "seen"


def pack_sequence(
    sequence: Sequence,
    writer: ShardWriter,
    longest: int,
    known: KnownSources,
    advance: Callable[[int], None],
) -> list[str]:
    """Add one MOTChallenge sequence of split train; pedestrians get label 0.

    Args:
        sequence: with its ground truth.
        writer: writer of the shards.
        longest: longer side of the stored pictures in pixels.
        known: properties of sources.
        advance: called with the number of frames done.

    Returns:
        a line for each unreadable picture, which is left out. A video that cannot be read to its
        end is left out as a whole, with one line.

    Raises:
        PackError: the folder has fewer pictures than seqinfo.ini says.
        StorageError: storage fails while the video is read.
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
    """Yield (index, picture (h, w, 3) uint8 RGB); an unreadable one adds a line to `problems`."""
    if sequence.video.is_file():
        frames = read_frames(str(sequence.video), indices, sequence.width, sequence.height)
        yield from zip(indices, frames, strict=True)
        return
    files = picture_files(sequence.video)
    if len(files) < sequence.length:
        # It is unknown which picture is missing, so labels would go to wrong pictures.
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
    """Add the stills of a COCO file; boxes of category 1 get label 0.

    Args:
        annotations: COCO JSON; pictures lie beside it in `images/`. `iscrowd` or `ignore` boxes
            become ignored ones. `images[].split` is `train`, the default, or `val`.
        writer: writer of the shards.
        longest: longer side of the stored pictures in pixels; smaller WebP files are copied.
        known: properties of sources.
        advance: called with the number of stills done.

    Returns:
        a line for each unreadable picture, which is left out.

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
            extent=known.extent_of_stills(source),
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
            image.load()  # finds out whether a file to be copied is damaged
            return path.read_bytes(), 1.0
        return encode_picture(np.asarray(image.convert("RGB")), longest)
