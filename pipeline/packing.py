"""Turn labelled video and labelled stills into training shards."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.indexed_frames import read_frames
from pipeline.mot import PEDESTRIAN, Sequence
from pipeline.shards import LabelledFrame, LabelledSequence, ShardWriter, encode_picture

# MOT16's numbering: person on vehicle, static person, distractor, reflection. They look like
# people, are not to be found, and must not be taught as background either.
_LOOKALIKES = (2, 7, 8, 12)
_HIDDEN = 0.15  # of a person less than this is seen: not to be learned from
_CHUNK = 64


class PackError(ValueError):
    """Training data that cannot be packed; the message names it, the reason and the remedy."""


def pack_sequence(
    sequence: Sequence, writer: ShardWriter, longest: int, advance: Callable[[int], None]
) -> None:
    """Add one MOTChallenge sequence, its class person as label 0.

    Args:
        sequence: with its ground truth.
        writer: where to.
        longest: longer side of the stored pictures in pixels.
        advance: called with the number of frames done.
    """
    frames: list[LabelledFrame] = []
    pictures: dict[str, bytes] = {}
    for start in range(0, sequence.length, _CHUNK):
        indices = range(start, min(start + _CHUNK, sequence.length))
        for index, pixels in zip(indices, _read(sequence, indices), strict=True):
            data, factor = encode_picture(pixels, longest)
            name = f"{sequence.name}/{index:06d}.webp"
            pictures[name] = data
            frames.append(_label(sequence, index, name, factor))
        advance(len(indices))
    writer.add(LabelledSequence(sequence.name, sequence.frame_rate, True, frames), pictures)


def _read(sequence: Sequence, indices: range) -> np.ndarray | list[np.ndarray]:
    if sequence.video.is_file():
        return read_frames(str(sequence.video), indices, sequence.width, sequence.height)
    files = sorted(p for p in sequence.video.iterdir() if p.suffix.lower() in (".jpg", ".png"))
    return [np.asarray(Image.open(files[i]).convert("RGB")) for i in indices]


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
    poor_sources: Collection[str],
    advance: Callable[[int], None],
) -> None:
    """Add the stills of a COCO file, its category 1 as label 0.

    Args:
        annotations: COCO JSON; pictures lie beside it in `images/`. `iscrowd` or `ignore` boxes
            become ignored ones.
        writer: where to.
        longest: longer side in pixels; smaller WebP pictures are taken as they are.
        poor_sources: values of an image's `source` whose pictures are not known to be good.
        advance: called with the number of stills done.

    Raises:
        PackError: the file or a picture it names cannot be read.
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
    for image in block["images"]:
        path = annotations.parent / "images" / image["file_name"]
        data, factor = _still(path, longest)
        labels = boxes[image["id"]]
        frame = LabelledFrame(
            path.name,
            [[round(v * factor, 2) for v in entry["bbox"]] for entry in labels],
            list(range(len(labels))),
            [0] * len(labels),
            [bool(entry.get("ignore") or entry.get("iscrowd")) for entry in labels],
        )
        clean = image.get("source") not in poor_sources
        writer.add(LabelledSequence(path.stem, 0.0, clean, [frame]), {path.name: data})
        advance(1)


def _still(path: Path, longest: int) -> tuple[bytes, float]:
    try:
        with Image.open(path) as image:
            if image.format == "WEBP" and max(image.size) <= longest:
                return path.read_bytes(), 1.0
            return encode_picture(np.asarray(image.convert("RGB")), longest)
    except (OSError, UnidentifiedImageError) as error:
        raise PackError(
            f"{path}: not a readable picture ({error}); remove it from the annotations"
        ) from error
