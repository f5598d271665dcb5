"""Pack corrected tracks, with the pictures of their videos, into training shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from av.video.reformatter import VideoReformatter

from model.net.letterbox import Letterbox
from pipeline.datasets.corrected import (
    CorrectedBoxes,
    CorrectedVideo,
    LabelNames,
    LabelsError,
    resolve,
)
from pipeline.datasets.cvat_labels import read_cvat, xml_in_zip
from pipeline.datasets.labelstudio_labels import read_labelstudio
from pipeline.datasets.packing import KnownSources
from pipeline.datasets.shards import LabelledFrame, LabelledSequence, ShardWriter, encode_picture
from pipeline.storage.files import ArchiveFile, list_videos, read_bytes
from pipeline.video.decoder import Decoder
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit
from pipeline.video.probe import ProbeError, probe

_FORMATS = (".xml", ".zip", ".json")
_PART = 0.5  # share of a shard that a part of a long video fills


def read_corrected(paths: Iterable[str]) -> list[CorrectedVideo]:
    """Read files of CVAT (.xml, or .zip as it exports them) and of Label Studio (.json).

    Args:
        paths: files or URLs; a local folder stands for all such files in it.

    Raises:
        LabelsError: a file is none of these, or not valid.
        StorageError: a file cannot be read.
    """
    videos: list[CorrectedVideo] = []
    for file in _files(paths):
        kind = PurePosixPath(file).suffix.lower()
        if kind not in _FORMATS:
            raise LabelsError(
                f"{file}: is not one of {', '.join(_FORMATS)}; export it from CVAT or Label Studio"
            )
        content = read_bytes(file)
        if not content.strip():
            raise LabelsError(f"{file}: is empty; export it again")
        if kind == ".json":
            videos += read_labelstudio(file, content)
        else:
            xml = xml_in_zip(file, content) if kind == ".zip" else content
            videos.append(read_cvat(file, xml))
    return videos


def find_videos(labels: Sequence[CorrectedVideo], root: str) -> list[VideoInfo]:
    """The header of each video, by its path or file name below a folder.

    Args:
        labels: corrected tracks.
        root: folder or URL with the videos; or one video, which is then that of all labels.

    Raises:
        LabelsError: a video is not there, or several have its name, or it is none.
        StorageError: the folder cannot be listed.
    """
    if not root:
        raise LabelsError("corrected= needs videos=, the folder with the videos of the labels")
    files = list(list_videos(root))
    return [_header(one, _find(one, files, root)) for one in labels]


def pack_corrected(
    labels: CorrectedVideo,
    info: VideoInfo,
    writer: ShardWriter,
    longest: int,
    known: KnownSources,
    names: LabelNames,
    advance: Callable[[int], None],
) -> list[str]:
    """Add one video with its corrected tracks, of split train.

    Each frame from the first to the last labelled one is packed, because one without boxes shows
    that nobody is there. A long video becomes several sequences.

    Args:
        labels: the corrected tracks.
        info: their video.
        writer: writer of the shards.
        longest: longer side of the stored pictures in pixels.
        known: properties of sources; the source is the path of the video.
        names: what labels mean.
        advance: called with the number of frames done.

    Returns:
        lines on what was put right, or left out because it cannot be read.

    Raises:
        LabelsError: labels and video do not fit.
        StorageError: storage fails while the video is read.
    """
    size = info.width, info.height
    try:
        decoder = Decoder(info)
        frames = sum(1 for _ in decoder.frames())
        boxes = resolve(labels, frames, size, names)
        _pack(labels, info, boxes, writer, longest, known, advance)
    except DecodeError as error:
        return [f"left out: {info.relative_path}: {error}"]
    return [f"repaired: {labels.file}: {line}" for line in labels.repairs]


def _pack(
    labels: CorrectedVideo,
    info: VideoInfo,
    boxes: CorrectedBoxes,
    writer: ShardWriter,
    longest: int,
    known: KnownSources,
    advance: Callable[[int], None],
) -> None:
    box = Letterbox(info.height, info.width, info.height, info.width)
    scaler = VideoReformatter()
    frames: list[LabelledFrame] = []
    pictures: dict[str, bytes] = {}
    times: list[float] = []
    parts = 0

    def add() -> None:
        name = info.relative_path if not parts else f"{info.relative_path} part {parts + 1}"
        rate = (len(times) - 1) / (times[-1] - times[0]) if times[-1] > times[0] else 25.0
        packed = LabelledSequence(
            name=name,
            source=info.relative_path,
            split="train",
            fps=info.fps or rate,
            clean=known.is_clean(info.relative_path),
            extent="whole",
            squeezed=known.is_squeezed(info.relative_path),
            frames=frames,
        )
        writer.add(packed, pictures)

    filled = 0
    for index, time_s, picture in Decoder(info).frames():
        if labels.last is not None and index > labels.last:
            break
        advance(1)
        if index < labels.first:
            continue
        data, factor = encode_picture(fit(picture, box, scaler), longest)
        if filled + len(data) > _PART * writer.limit and frames:
            add()
            frames, pictures, times, filled, parts = [], {}, [], 0, parts + 1
        name = f"{index:06d}.webp"
        frames.append(_label(boxes, index, name, factor))
        pictures[name] = data
        times.append(time_s)
        filled += len(data)
    if frames:
        add()


def _label(boxes: CorrectedBoxes, index: int, name: str, factor: float) -> LabelledFrame:
    rows = boxes.at(index)
    return LabelledFrame(
        name,
        np.round(boxes.xywh[rows] * factor, 2).tolist(),
        boxes.track_id[rows].tolist(),
        [0] * (rows.stop - rows.start),
        boxes.ignore[rows].tolist(),
    )


def _files(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        if "://" in path or not Path(path).is_dir():
            found.append(path)
            continue
        inside = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in _FORMATS)
        if not inside:
            raise LabelsError(f"{path}: no {', '.join(_FORMATS)} in it; export tracks into it")
        found += inside
    return found


def _find(labels: CorrectedVideo, files: list[ArchiveFile], root: str) -> ArchiveFile:
    if len(files) == 1 and PurePosixPath(files[0].uri).name == PurePosixPath(root).name:
        return files[0]  # `videos` names the file itself
    if not labels.video:
        raise LabelsError(
            f"{labels.file}: does not name its video (CVAT names it in a task, not in a job); pack "
            "it with videos=FILE, which names the one video"
        )
    path = PurePosixPath(labels.video)
    found = [f for f in files if f.relative_path == str(path)]
    found = found or [f for f in files if PurePosixPath(f.relative_path).name == path.name]
    if not found:
        raise LabelsError(
            f"{labels.file}: its video {labels.video} is not among the {len(files)} videos in "
            f"{root}; put it there, or name its folder with videos="
        )
    if len(found) > 1:
        raise LabelsError(
            f"{labels.file}: {len(found)} videos in {root} are called {path.name}: "
            f"{found[0].relative_path}, {found[1].relative_path}; name one of their folders with "
            "videos="
        )
    return found[0]


def _header(labels: CorrectedVideo, file: ArchiveFile) -> VideoInfo:
    try:
        return probe(file)
    except ProbeError as error:
        raise LabelsError(
            f"{labels.file}: its video {file.uri} cannot be opened: {error}; give a file that a "
            "video player opens"
        ) from error
