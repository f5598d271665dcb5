"""Reading tracks from an export of Label Studio, in its format JSON."""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.datasets.corrected import CorrectedTrack, CorrectedVideo, Key, LabelsError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(.+)$")  # what Label Studio puts before an uploaded name


def read_labelstudio(file: str, content: bytes) -> list[CorrectedVideo]:
    """Read the tracks of all tasks that have an annotation.

    Predictions are what a tracker has said, so they are not read. Of several annotations of a task
    the newest is taken.

    Args:
        file: path or URL, for messages.
        content: the JSON.

    Raises:
        LabelsError: it is not such a file, no task has an annotation, or a track is not valid.
    """
    try:
        tasks = json.loads(content)
    except ValueError as error:
        raise LabelsError(
            f"{file}: is not readable as JSON ({error}); export it again from Label Studio"
        ) from error
    tasks = tasks if isinstance(tasks, list) else [tasks]
    videos: list[CorrectedVideo] = []
    for place, task in enumerate(tasks):
        if not isinstance(task, dict) or "data" not in task:
            raise LabelsError(
                f"{file}: entry {place} is no task with data; export in the format JSON, not "
                "JSON-MIN"
            )
        try:
            videos += _read_task(file, task)
        except LabelsError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise LabelsError(
                f"{file}: task {_name(task, place)} is not as Label Studio writes it "
                f"({type(error).__name__}: {error}); export it again in the format JSON"
            ) from error
    if not videos:
        raise LabelsError(
            f"{file}: no task has an annotation; press Submit in Label Studio and export again "
            "(predictions are not taken for labels)"
        )
    return videos


def _name(task: dict[str, Any], place: int) -> str:
    return str(task.get("id", place))


def _read_task(file: str, task: dict[str, Any]) -> list[CorrectedVideo]:
    finished = [a for a in task.get("annotations", []) if not a.get("was_cancelled")]
    if not finished:
        return []
    newest = max(finished, key=lambda a: (a.get("updated_at") or "", a.get("id") or 0))
    repairs = []
    if len(finished) > 1:
        repairs.append(f"{len(finished)} annotations of one video; the newest is taken")
    regions = [r for r in newest["result"] if r["type"] == "videorectangle"]
    tracks: list[CorrectedTrack] = []
    numbers: dict[str, int] = {}
    for region in regions:
        number = numbers.setdefault(str(region["id"]), len(numbers) + 1)
        tracks.append(_track(file, region, number))
    counts = {int(r["value"]["framesCount"]) for r in regions if r["value"].get("framesCount")}
    return [
        CorrectedVideo(
            file=file,
            video=_video(task["data"]),
            tracks=tracks,
            frames=max(counts) if counts else None,
            exact=False,
            percent=True,
            repairs=repairs,
        )
    ]


def _video(data: dict[str, Any]) -> str:
    """Path or file name of a task's video."""
    if data.get("relative_path"):
        return str(data["relative_path"])
    address = urlsplit(str(data["video"]))
    name = parse_qs(address.query).get("d", [unquote(address.path)])[0]
    path = PurePosixPath(name)
    uploaded = _UPLOADED.match(path.name)
    return uploaded[1] if uploaded else name


def _track(file: str, region: dict[str, Any], number: int) -> CorrectedTrack:
    name = f"region {region['id']}"
    keys: dict[int, Key] = {}
    for item in region["value"]["sequence"]:
        key = _key(file, name, item)
        if key.frame in keys:
            raise LabelsError(
                f"{file}: {name} has two boxes in frame {key.frame + 1}; delete one of them"
            )
        keys[key.frame] = key
    labels = region["value"].get("labels") or [""]
    ordered = [keys[frame] for frame in sorted(keys)]
    return CorrectedTrack(name, number, str(labels[0]), ordered)


def _key(file: str, name: str, item: dict[str, Any]) -> Key:
    frame = int(item["frame"]) - 1
    x, y, w, h = (float(item[side]) for side in ("x", "y", "width", "height"))
    if frame < 0 or not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise LabelsError(
            f"{file}: {name} has in frame {frame + 1} the box {x:g}, {y:g} of {w:g} by {h:g} "
            "percent; a frame from 1 and a width and height above 0 are expected"
        )
    if item.get("rotation"):
        raise LabelsError(
            f"{file}: {name} is turned by {item['rotation']:g} degrees in frame {frame + 1}; "
            "people are upright boxes, so set its rotation to 0"
        )
    # A keyframe that is not enabled is shown; the frames after it are not.
    return Key(frame, (x, y, x + w, y + h), True, bool(item.get("enabled", True)))
