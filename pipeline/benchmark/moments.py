"""The worst moments of a benchmark: where ids switch and people are missed, with frame strips."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import motmetrics
import numpy as np
from PIL import Image, ImageDraw

from pipeline.benchmark.cells import TRACK, Cell, read_boxes
from pipeline.benchmark.metrics import iou_matrix, preprocess
from pipeline.benchmark.plan import EvalSettings, cell_uri
from pipeline.benchmark.results import Results
from pipeline.datasets.boxes import Boxes, evaluated
from pipeline.datasets.mot import Sequence as Clip
from pipeline.trackers.sequence_frames import SequenceFrames

_COUNT = 10
_APART = 10  # least number of frames between two moments of one cell
_SWITCH_COST = 3.0  # misses that count as much as an id switch
_WIDTH = 300
_GREEN, _RED, _YELLOW = "#39d353", "#ff5555", "#ffd33d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A frame with many errors, and a strip of the frames before, at and after it.

    Attributes:
        switches, misses, false: errors in the frame.
        picture: JPEG as a data URL. Green boxes are ground truth that was found, yellow ones
            ground truth that was missed, red ones tracks without ground truth.
    """

    sequence: str
    condition: str
    tracker: str
    frame: int
    switches: int
    misses: int
    false: int
    picture: str


def worst_moments(
    results: Results,
    cells: Sequence[Cell],
    sequences: Mapping[str, Clip],
    settings: EvalSettings,
) -> list[Moment]:
    """The ten worst frames of the first tracker of the table, over all its cells."""
    tracker = results.trackers[0]
    shown = {row["cell"] for row in results.rows if not row["apart"]}
    own = [c for c in cells if c.tracker.name == tracker and c.name in shown]
    ranked: list[tuple[float, Cell, int, dict[str, int]]] = []
    for cell in own:
        gt, tracks = scored_pair(cell, sequences[cell.sequence], settings)
        counts = frame_errors(gt, tracks)
        taken: list[int] = []
        for frame in sorted(counts, key=lambda f: -_badness(counts[f])):
            if len(taken) == _COUNT or _badness(counts[frame]) == 0:
                break
            if all(abs(frame - other) >= _APART for other in taken):
                taken.append(frame)
                ranked.append((_badness(counts[frame]), cell, frame, counts[frame]))
    ranked.sort(key=lambda item: -item[0])
    return [
        Moment(
            sequence=cell.sequence,
            condition=cell.condition.name,
            tracker=tracker,
            frame=frame,
            switches=counts["SWITCH"],
            misses=counts["MISS"],
            false=counts["FP"],
            picture=_strip(cell, sequences[cell.sequence], settings, frame),
        )
        for _, cell, frame, counts in ranked[:_COUNT]
    ]


def frame_errors(gt: Boxes, tracks: Boxes) -> dict[int, dict[str, int]]:
    """Switches, misses and false boxes of each frame, by motmetrics' events."""
    accumulator = motmetrics.MOTAccumulator()
    last = int(max([0, *gt.frame[-1:], *tracks.frame[-1:]]))
    for frame in range(1, last + 1):
        truth, guess = gt.at(frame), tracks.at(frame)
        overlap = iou_matrix(truth.xywh, guess.xywh)
        distance = np.where(overlap >= 0.5, 1 - overlap, np.nan)
        accumulator.update(truth.track_id, guess.track_id, distance, frameid=frame)
    found = {f: dict.fromkeys(("SWITCH", "MISS", "FP"), 0) for f in range(1, last + 1)}
    events = accumulator.mot_events
    for (frame, _), kind in zip(events.index, events["Type"], strict=True):
        if kind in found[frame]:
            found[frame][kind] += 1
    return found


def _badness(counts: dict[str, int]) -> float:
    return _SWITCH_COST * counts["SWITCH"] + counts["MISS"] + 0.5 * counts["FP"]


def scored_pair(cell: Cell, clip: Clip, settings: EvalSettings) -> tuple[Boxes, Boxes]:
    """The ground truth and the tracks of a cell, as they are scored."""
    tracks = read_boxes(cell_uri(settings.output, cell), TRACK)
    gt = clip.gt[clip.gt.frame <= (settings.frames or clip.length)]
    return preprocess(gt, tracks) if settings.preprocessing else (evaluated(gt), tracks)


def _strip(cell: Cell, clip: Clip, settings: EvalSettings, frame: int) -> str:
    """Frames around a moment with boxes, side by side."""
    gt, tracks = scored_pair(cell, clip, settings)
    last = min(clip.length, settings.frames or clip.length)
    wanted = [f for f in (frame - 2, frame, frame + 2) if 1 <= f <= last]
    # The re-encoded file of a codec condition is kept by this limit; others need no more frames.
    limit = settings.frames if cell.condition.kind == "codec" else wanted[-1]
    shots = SequenceFrames(
        replace(clip, gt=gt), cell.condition, limit, (), True, f"{settings.output}/codec"
    )
    tiles = []
    for shot in shots:
        if shot.index + 1 in wanted:
            assert shot.native is not None
            tiles.append(_drawn(shot.native, gt.at(shot.index + 1), tracks.at(shot.index + 1)))
        if shot.index + 1 >= wanted[-1]:
            break
    sheet = Image.new("RGB", (sum(t.width for t in tiles) or 1, tiles[0].height if tiles else 1))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * _WIDTH, 0))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _drawn(native: Any, gt: Boxes, tracks: Boxes) -> Image.Image:
    overlap = iou_matrix(gt.xywh, tracks.xywh) >= 0.5
    scale = _WIDTH / native.shape[1]
    picture = Image.fromarray(native).resize((_WIDTH, max(1, round(native.shape[0] * scale))))
    draw = ImageDraw.Draw(picture)
    for i, (x, y, w, h) in enumerate(gt.xywh * scale):
        draw.rectangle([x, y, x + w, y + h], outline=_GREEN if overlap[i].any() else _YELLOW)
    for j, (x, y, w, h) in enumerate(tracks.xywh * scale):
        if not overlap[:, j].any():
            draw.rectangle([x, y, x + w, y + h], outline=_RED)
        draw.text((x + 2, y + 1), str(tracks.track_id[j]), fill="white")
    return picture
