"""Labelled stills: a COCO file with boxes of people, and its pictures in `images/` beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRAIN, VAL = "train", "val"
_PERSON = 1


class StillsError(ValueError):
    """Stills that cannot be used; the message names the file, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Still:
    """One labelled picture.

    Attributes:
        path: of the picture.
        source: the data set it comes from; by default the folder's name.
        split: "train", the default, or "val".
        camera: name of the camera, "" if the file has none.
        xywh: (N, 4) float64 boxes of people, in pixels.
        ignored: (N,) bool, True for boxes that count neither as people nor as background.
    """

    path: Path
    source: str
    split: str
    camera: str
    xywh: np.ndarray[Any, Any]
    ignored: np.ndarray[Any, Any]


def read_stills(annotations: str | Path) -> list[Still]:
    """Read the stills of a COCO file in its order; boxes of category 1 are people, others drop.

    Raises:
        StillsError: The file cannot be read, or is not a COCO file.
    """
    annotations = Path(annotations)
    try:
        block = json.loads(annotations.read_text(encoding="utf-8"))
        boxes: dict[int, list[tuple[list[float], bool]]] = defaultdict(list)
        for entry in block["annotations"]:
            if entry["category_id"] == _PERSON:
                ignored = bool(entry.get("ignore") or entry.get("iscrowd"))
                boxes[entry["image_id"]].append((entry["bbox"], ignored))
        return [
            Still(
                annotations.parent / "images" / image["file_name"],
                image.get("source", annotations.parent.name),
                image.get("split", TRAIN),
                image.get("camera", ""),
                np.array([box for box, _ in boxes[image["id"]]], float).reshape(-1, 4),
                np.array([ignored for _, ignored in boxes[image["id"]]], bool),
            )
            for image in block["images"]
        ]
    except OSError as error:
        raise StillsError(
            f"stills={annotations}: cannot be read ({error.strerror}); give a COCO file with "
            "stills=…/annotations.json, its pictures beside it in images/"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StillsError(
            f"stills={annotations}: is no COCO file ({type(error).__name__}: {error}); expected "
            "JSON with images, annotations and boxes of four numbers"
        ) from error


def spread(stills: Sequence[Still], count: int) -> list[Still]:
    """Choose at most `count` stills, the same number of each source, evenly over its order.

    If a source has fewer, the others get its part. The choice is deterministic.
    """
    sources: dict[str, list[Still]] = defaultdict(list)
    for still in stills:
        sources[still.source].append(still)
    taken: list[Still] = []
    smallest_first = sorted(sources.values(), key=len)
    for place, members in enumerate(smallest_first):
        share = (count - len(taken)) // (len(smallest_first) - place)
        number = min(len(members), share)
        taken += [members[i * len(members) // number] for i in range(number)]
    return taken
