"""Reading tracks from a file of the format CVAT for video 1.1."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any
from xml.etree import ElementTree

from pipeline.datasets.corrected import CorrectedTrack, CorrectedVideo, Key, LabelsError

_SHAPES = ("polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")
_IN_ZIP = "annotations.xml"


def xml_in_zip(file: str, content: bytes) -> bytes:
    """The labels in an export of CVAT.

    Raises:
        LabelsError: the archive is damaged, or has none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(_IN_ZIP)
    # RuntimeError: it is encrypted.
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
        raise LabelsError(
            f"{file}: is no export of CVAT ({error}); it has to hold {_IN_ZIP}, so export the task "
            "in the format CVAT for video 1.1"
        ) from error


def read_cvat(file: str, content: bytes) -> CorrectedVideo:
    """Read the tracks of one task or job.

    Args:
        file: path or URL, for messages.
        content: the XML.

    Raises:
        LabelsError: it is not such a file, or a track in it is not valid.
    """
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise LabelsError(
            f"{file}: is not readable as XML ({error}); export it again from CVAT"
        ) from error
    found = [root.find(f"meta/{name}") for name in ("task", "job")]
    meta = next((element for element in found if element is not None), None)
    if meta is None:
        raise LabelsError(
            f"{file}: has no meta/task; export one task or job, in the format CVAT for video 1.1, "
            "not a whole project"
        )
    if root.find("image") is not None:
        raise LabelsError(
            f"{file}: is in the format CVAT for images, which has no tracks; export the task in "
            "the format CVAT for video 1.1"
        )
    repairs: list[str] = []
    tracks = [_track(file, element, repairs) for element in root.findall("track")]
    start, last = _number(file, meta, "start_frame") or 0, _number(file, meta, "stop_frame")
    return CorrectedVideo(
        file=file,
        video=_source(root, meta),
        tracks=tracks,
        frames=_number(file, meta, "size") if last is None else last + 1,
        exact=True,
        first=start,
        last=last,
        size=_size(file, meta),
        repairs=repairs,
    )


def _source(root: ElementTree.Element, meta: ElementTree.Element) -> str:
    """Name of the video: of a task its `source`, which older versions write beside it."""
    names = (meta.findtext("source"), root.findtext("meta/source"), meta.findtext("name"))
    return next((name for name in names if name and name.strip()), "")


def _size(file: str, meta: ElementTree.Element) -> tuple[int, int] | None:
    box = meta.find("original_size")
    if box is None:
        return None
    width, height = (_number(file, box, side) for side in ("width", "height"))
    return None if width is None or height is None else (width, height)


def _number(file: str, parent: ElementTree.Element, name: str) -> int | None:
    text = (parent.findtext(name) or "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise LabelsError(f"{file}: {name} is {text!r}; a whole number is expected")
    return int(text)


def _track(file: str, element: ElementTree.Element, repairs: list[str]) -> CorrectedTrack:
    number = element.get("id", "")
    name = f"track {number}"
    if not number.isdecimal():
        raise LabelsError(f"{file}: a track has the id {number!r}; a whole number is expected")
    keys: dict[int, Key] = {}
    for shape in element:
        if shape.tag in _SHAPES:
            raise LabelsError(
                f"{file}: {name} is a {shape.tag}; people are boxes, so delete it or draw a box"
            )
        if shape.tag != "box":
            continue
        key, turned = _key(file, name, shape.attrib)
        if key.frame in keys:
            raise LabelsError(
                f"{file}: {name} has two boxes in frame {key.frame}; delete one of them"
            )
        keys[key.frame] = key
        if turned:
            repairs.append(f"{name}, frame {key.frame}: a turned box became the one around it")
    ordered = [keys[frame] for frame in sorted(keys)]
    return CorrectedTrack(name, int(number), element.get("label", ""), ordered)


def _key(file: str, name: str, given: dict[str, Any]) -> tuple[Key, bool]:
    try:
        frame = int(given["frame"])
        left, top, right, bottom = (float(given[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        angle = float(given.get("rotation", 0))
    except (KeyError, ValueError) as error:
        raise LabelsError(
            f"{file}: {name} has a box that cannot be read ({error}); it needs frame, xtl, ytl, "
            "xbr and ybr"
        ) from error
    values = (left, top, right, bottom, angle)
    if frame < 0 or not all(map(math.isfinite, values)) or right <= left or bottom <= top:
        raise LabelsError(
            f"{file}: {name} has in frame {frame} the box {left:g}, {top:g} to {right:g}, "
            f"{bottom:g}; a frame from 0, xtl < xbr and ytl < ybr are expected"
        )
    corners = _around((left, top, right, bottom), angle) if angle else (left, top, right, bottom)
    shown = given.get("outside") != "1"
    return Key(frame, corners, shown, shown), bool(angle)


def _around(
    corners: tuple[float, float, float, float], degrees: float
) -> tuple[float, float, float, float]:
    """Corners of the upright box around one that is turned about its middle."""
    left, top, right, bottom = corners
    turn = math.radians(degrees)
    cosine, sine = abs(math.cos(turn)), abs(math.sin(turn))
    width, height = right - left, bottom - top
    half_w, half_h = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half_w, y - half_h, x + half_w, y + half_h
