"""Copy and paste: labelled people of other pictures are pasted into a frame.

Dwibedi, Misra and Hebert, "Cut, Paste and Learn", ICCV 2017, but with boxes
instead of masks: the cut-out is an ellipse-like part of the box with soft edges.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.clips.draws import log_uniform
from pipeline.clips.labels import Labels, joined
from pipeline.clips.views import View, cut

_PEOPLE = (1, 3)
_LEAST_HEIGHT = 32.0  # pixels of a box that is cut out
_STANDING = (1.7, 4.5)  # height over width of standing people, not of heads or half figures
_TOUCHES = 0.02  # share of a box that another box may cover
_GROWTH = 1.5  # greatest enlargement of a cut-out
_SMALLEST = 16.0  # pixels on the canvas
_ALONE = (32.0, 160.0)  # pixels high, in a frame without other people


@dataclass(frozen=True, slots=True)
class Donor:
    """A box that can be cut out.

    Attributes:
        sequence, frame: of the picture.
        box: (4,) corners in its pixels.
        label: class index.
        extent: what the box shows of the person, an `Extent`.
    """

    sequence: int
    frame: int
    box: np.ndarray
    label: int
    extent: int


def donors_of(labels: Labels, sequence: int, frame: int) -> list[Donor]:
    """Boxes of one frame that can be cut out: of standing people, not overlapped by others."""
    alone = (covered_shares(labels.boxes, labels.boxes) <= _TOUCHES).all(0)
    upright = labels.heights / np.maximum(1e-6, labels.boxes[:, 2] - labels.boxes[:, 0])
    fit = alone & ~labels.ignore & (labels.heights >= _LEAST_HEIGHT)
    fit &= (upright >= _STANDING[0]) & (upright <= _STANDING[1])
    return [
        Donor(sequence, frame, labels.boxes[i], int(labels.classes[i]), int(labels.extent[i]))
        for i in np.flatnonzero(fit)
    ]


def covered_shares(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of each box that each of the others covers.

    Args:
        boxes: (n, 4) corners.
        others: (m, 4) corners. If it is the same array as `boxes`, no box covers itself.

    Returns:
        (m, n).
    """
    low = np.maximum(others[:, None, :2], boxes[None, :, :2])
    high = np.minimum(others[:, None, 2:], boxes[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    shares: np.ndarray = both / np.maximum(1e-6, (boxes[:, 2:] - boxes[:, :2]).prod(-1))
    if others is boxes:
        np.fill_diagonal(shares, 0)
    return shares


def paste_people(
    frame: np.ndarray,
    labels: Labels,
    draw_donor: Callable[[], tuple[np.ndarray, Donor]],
    random: np.random.Generator,
    large: np.ndarray | None = None,
) -> tuple[np.ndarray, Labels]:
    """Paste one to three people into a frame.

    Args:
        frame: (h, w, 3) uint8.
        labels: of the frame, in its pixels.
        draw_donor: draws a picture and a person in it.
        random: source of the draws.
        large: the frame at another scale; people are pasted into it in place.

    Returns:
        a copy of the frame with the people, and its labels. People of whom too little stays
        visible are ignored.
    """
    frame = frame.copy()
    for _ in range(int(random.integers(_PEOPLE[0], _PEOPLE[1] + 1))):
        picture, donor = draw_donor()
        box = _draw_box(frame.shape[1], frame.shape[0], labels, donor, random)
        if box is None:
            continue
        flip = random.random() < 0.5
        _blend(frame, picture, donor, box, flip=flip)
        if large is not None:
            scale = large.shape[1] / frame.shape[1]
            _blend(large, picture, donor, np.rint(box * scale).astype(int), flip=flip)
        new = Labels(
            box[None].astype(np.float32),
            np.array([labels.ids.max(initial=-1) + 1]),
            np.array([donor.label]),
            np.array([False]),
            np.array([donor.extent], np.uint8),
        ).clipped(frame.shape[1], frame.shape[0])
        covered = covered_shares(labels.boxes, box[None])[0]
        labels = joined([labels.covered(covered), new])
    return frame, labels


def _draw_box(
    width: int, height: int, labels: Labels, donor: Donor, random: np.random.Generator
) -> np.ndarray | None:
    """Draw a box in whole pixels, like those of other people in size and place; None if tiny."""
    usual = labels.median_height()
    about = (0.7 * usual, 1.4 * usual) if usual else _ALONE
    tall = log_uniform(random, *about)
    size = donor.box[2:] - donor.box[:2]
    tall = round(min(tall, _GROWTH * size[1], 0.9 * height))
    wide = round(tall * size[0] / size[1])
    if tall < _SMALLEST or not 3 < wide <= width:
        return None
    people = labels.boxes[~labels.ignore]
    if len(people):
        foot = people[random.integers(len(people)), 3] + random.uniform(-0.3, 0.3) * tall
    else:
        foot = random.uniform(tall, height)
    y = round(min(max(foot - tall, 0), height - tall))
    x = int(random.integers(width - wide + 1))
    return np.array([x, y, x + wide, y + tall])


def _blend(
    frame: np.ndarray, picture: np.ndarray, donor: Donor, box: np.ndarray, *, flip: bool
) -> None:
    """Paste the donor over a box (4,) of whole pixels of the frame, in place."""
    size = (int(box[2] - box[0]), int(box[3] - box[1]))
    x1, y1, x2, y2 = (float(v) for v in donor.box)
    view = View(x1, y1, x2 - x1, y2 - y1)
    person = cut(picture, view, size, flip=flip).astype(np.float32)
    place = frame[box[1] : box[3], box[0] : box[2]]
    alpha = _alpha(*size)[..., None]
    place[:] = (place + alpha * (person - place) + 0.5).astype(np.uint8)


def _alpha(width: int, height: int) -> np.ndarray:
    """Opacity (height, width): 1 inside, less at the border, 0 in the corners."""
    x = np.abs(2 * (np.arange(width) + 0.5) / width - 1)
    y = np.abs(2 * (np.arange(height) + 0.5) / height - 1)
    distance = (x[None, :] ** 3 + y[:, None] ** 3) ** (1 / 3)
    alpha: np.ndarray = np.clip((1.04 - distance) / 0.16, 0, 1).astype(np.float32)
    return alpha
