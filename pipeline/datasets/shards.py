"""Training data in shards: zip files of pictures at training size with their labels.

Reading a shard needs Python and OpenCV alone, so training also runs on a machine without video
decoder and network. Each shard has `labels.json` and the pictures named there. A sequence lies in
one shard.
"""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FORMAT = 2
SPLITS = ("train", "val")
EXTENTS = ("seen", "whole", "loose")


class ShardError(ValueError):
    """A shard that cannot be read; the message names it, the reason and the remedy."""


class PictureError(ShardError):
    """One picture of a shard that cannot be read."""


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """One picture with its labels.

    Attributes:
        file: name of the picture in the shard.
        boxes: [x, y, w, h] in pixels of the picture.
        ids: identity of each box within its sequence.
        labels: class index of each box.
        ignore: True for boxes that count neither as objects nor as background.
    """

    file: str
    boxes: list[list[float]]
    ids: list[int]
    labels: list[int]
    ignore: list[bool]


@dataclass(frozen=True, slots=True)
class LabelledSequence:
    """Consecutive frames of one video, or one still.

    Attributes:
        name: name of the sequence, or of the still's file.
        source: of a still its data set or camera, of a video its name.
        split: `train`, or `val` for data that is never trained on.
        fps: frames per second; 0 for a still.
        clean: whether the pictures are known to be clean: their severity is 0, else unknown.
        extent: what boxes show of people: `seen`, the visible part; `whole`, hidden parts
            included; `loose`, neither, because boxes are too large or beside people. The place of
            loose boxes is not learned, only that somebody is there.
        squeezed: whether the pictures have lost their aspect ratio.
        frames: in order.
    """

    name: str
    source: str
    split: str
    fps: float
    clean: bool
    extent: str
    squeezed: bool
    frames: list[LabelledFrame]


class ShardWriter:
    """Collects sequences and writes shard-000.zip, … of at most `limit` bytes of pictures each.

    The shards of an earlier packing stay until `close` replaces them by the new ones.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], limit: int = 56_000_000) -> None:
        self.folder, self.classes, self.limit = Path(folder), list(classes), limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written: list[Path] = []
        self._added = 0
        self._partial: list[Path] = []
        self._sequences: list[LabelledSequence] = []
        self._pictures: dict[str, bytes] = {}
        self._size = 0

    def add(self, sequence: LabelledSequence, pictures: dict[str, bytes]) -> None:
        """Add a sequence and its encoded pictures by file name.

        Names have to be unique in the sequence. In the shard its number is put before them.

        Raises:
            ShardError: the sequence alone is larger than a shard may be.
        """
        size = sum(map(len, pictures.values()))
        if size > self.limit:
            raise ShardError(
                f"{sequence.name}: {size} bytes of pictures, a shard holds {self.limit}; "
                "pack with smaller pictures or cut the sequence"
            )
        if self._size + size > self.limit:
            self._write()
        prefix = f"{self._added:06d}"
        frames = [replace(f, file=f"{prefix}/{f.file}") for f in sequence.frames]
        self._sequences.append(replace(sequence, frames=frames))
        self._pictures |= {f"{prefix}/{name}": data for name, data in pictures.items()}
        self._size += size
        self._added += 1

    def close(self) -> None:
        """Write the last shard, and remove the shards of an earlier packing.

        Raises:
            ShardError: nothing was added.
        """
        self._write()
        if not self._partial:
            raise ShardError(
                f"{self.folder}: nothing to pack; name sequences, stills or corrected tracks that "
                "can be read"
            )
        for partial in self._partial:
            path = partial.with_suffix("")
            partial.replace(path)
            self.written.append(path)
        for path in self.folder.glob("shard-*.zip*"):
            if path not in self.written:
                path.unlink()
        self._partial = []

    def _write(self) -> None:
        if not self._sequences:
            return
        partial = self.folder / f"shard-{len(self._partial):03d}.zip.partial"
        block = {
            "format": FORMAT,
            "classes": self.classes,
            "sequences": [asdict(sequence) for sequence in self._sequences],
        }
        # Stored without compression, because the pictures are compressed already.
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("labels.json", json.dumps(block, separators=(",", ":")))
            for name, data in self._pictures.items():
                archive.writestr(name, data)
        self._partial.append(partial)
        self._sequences, self._pictures, self._size = [], {}, 0


class Shards:
    """All sequences of a folder of shards; pictures are read on demand.

    Attributes:
        folder: folder of the shards.
        classes: class names by label.
        sequences: all sequences, in the order of the shards.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.glob("shard-*.zip"))
        if not paths:
            raise ShardError(f"{folder}: no shard-*.zip in it; make them with vsdmot pack")
        self.classes: list[str] = []
        self.sequences: list[LabelledSequence] = []
        self._home: list[Path] = []
        self._open: dict[Path, tuple[int, zipfile.ZipFile]] = {}
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                block = json.loads(archive.read("labels.json"))
        except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
            raise ShardError(f"{path}: not a shard ({error}); pack it again") from error
        if block["format"] != FORMAT:
            raise ShardError(f"{path}: shard format {block['format']}, need {FORMAT}; pack again")
        if self.classes and block["classes"] != self.classes:
            raise ShardError(f"{path}: classes {block['classes']}, others have {self.classes}")
        self.classes = block["classes"]
        for entry in block["sequences"]:
            if entry["extent"] not in EXTENTS:
                raise ShardError(
                    f"{path}: {entry['name']}: extent is {entry['extent']!r}; expected one of "
                    f"{', '.join(EXTENTS)}; pack again"
                )
            frames = [LabelledFrame(**frame) for frame in entry.pop("frames")]
            self.sequences.append(LabelledSequence(**entry, frames=frames))
            self._home.append(path)

    def of_split(self, split: str) -> list[int]:
        """Indices of the sequences of a split, `train` or `val`."""
        return [i for i, sequence in enumerate(self.sequences) if sequence.split == split]

    def encoded(self, sequence: int, frame: int) -> bytes:
        """The encoded bytes of one picture. Safe in threads and in forked processes.

        Raises:
            PictureError: the picture cannot be read.
        """
        path, name = self._home[sequence], self.sequences[sequence].frames[frame].file
        try:
            return self._archive(path).read(name)
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise PictureError(_unreadable(path, name, str(error))) from error

    def picture(self, sequence: int, frame: int) -> np.ndarray:
        """One picture (h, w, 3) uint8 RGB.

        Raises:
            PictureError: the picture cannot be read.
        """
        data = np.frombuffer(self.encoded(sequence, frame), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if decoded is None:
            path, name = self._home[sequence], self.sequences[sequence].frames[frame].file
            raise PictureError(_unreadable(path, name, "damaged"))
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

    def _archive(self, path: Path) -> zipfile.ZipFile:
        """The open file, one per process, because forked processes share the position in a file."""
        process, archive = self._open.get(path, (0, None))
        if archive is None or process != os.getpid():
            archive = zipfile.ZipFile(path)
            self._open[path] = (os.getpid(), archive)
        return archive

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}


def _unreadable(path: Path, name: str, reason: str) -> str:
    return f"{path}: {name}: not a readable picture ({reason}); pack the shards again"


def fits_any(source: str, patterns: Sequence[str]) -> bool:
    """Whether one of some glob patterns fits the name of a source."""
    return any(fnmatchcase(source, pattern) for pattern in patterns)


def require_train(shards: Shards) -> list[int]:
    """Indices of the sequences of split `train`.

    Raises:
        ShardError: there are none.
    """
    return _required(shards, "train", "frame", shards.of_split("train"))


def require_val(shards: Shards) -> list[int]:
    """Indices of the stills of split `val`, on which detection is scored.

    Raises:
        ShardError: there are none.
    """
    stills = [i for i in shards.of_split("val") if shards.sequences[i].fps == 0]
    return _required(shards, "val", "still", stills)


def _required(shards: Shards, split: str, what: str, found: list[int]) -> list[int]:
    if not found:
        raise ShardError(
            f"{shards.folder}: no {what} of split {split} in its {len(shards.sequences)} "
            f"sequences; pack stills with images[].split, or sequences, that have it"
        )
    return found


def encode_picture(pixels: np.ndarray, longest: int, quality: int = 82) -> tuple[bytes, float]:
    """Shrink (H, W, 3) uint8 RGB to at most `longest` pixels a side and encode it as WebP.

    Returns:
        the bytes of the file, and the factor from source pixels to stored pixels.
    """
    image = Image.fromarray(pixels)
    factor = min(1.0, longest / max(image.size))
    if factor < 1:
        size = (round(image.width * factor), round(image.height * factor))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue(), factor
