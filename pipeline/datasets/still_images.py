"""Labelled stills: a COCO file of people, its pictures beside it in `images/`."""

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
        source: the data set it comes from; the folder's name if the file does not say.
        split: "train" or "val"; "train" if the file does not say.
        camera: where the file names one, else "".
        xywh: (N, 4) float64 boxes of people, in pixels.
        ignored: (N,) bool, boxes that are neither people nor background.
    """

    path: Path
    source: str
    split: str
    camera: str
    xywh: np.ndarray[Any, Any]
    ignored: np.ndarray[Any, Any]


def read_stills(annotations: str | Path) -> list[Still]:
    """The stills of a COCO file in its order; category 1 is a person, others are no boxes.

    Raises:
        StillsError: No such file, or it is no COCO file.
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
    """At most `count` stills, as many of each source as there are, evenly over its own order.

    Sources that have fewer leave their part to the others; the same stills always.
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
