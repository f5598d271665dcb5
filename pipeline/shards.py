"""Training data in shards: zip files of pictures at training size with their labels.

A shard needs nothing but Python and Pillow to be read, so training also runs on a machine that
has no decoder and no network. Each holds `labels.json` and the pictures it names; a sequence is
never split between shards.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FORMAT = 1


class ShardError(ValueError):
    """A shard that cannot be read; the message names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """One picture and what is in it.

    Attributes:
        file: name of the picture in the shard.
        boxes: [x, y, w, h] in pixels of the picture.
        ids: identity of each box within its sequence.
        labels: class index of each box.
        ignore: boxes that are neither object nor background.
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
        name: where it came from.
        fps: frames per second; 0 for a still.
        clean: the picture is known to be good, so its severity is 0 rather than unknown.
        frames: in order.
    """

    name: str
    fps: float
    clean: bool
    frames: list[LabelledFrame]


class ShardWriter:
    """Collect sequences; write shard-000.zip, … of at most `limit` bytes of pictures each."""

    def __init__(self, folder: str | Path, classes: Sequence[str], limit: int = 56_000_000) -> None:
        self.folder, self.classes, self.limit = Path(folder), list(classes), limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written: list[Path] = []
        self._sequences: list[LabelledSequence] = []
        self._pictures: dict[str, bytes] = {}
        self._size = 0

    def add(self, sequence: LabelledSequence, pictures: dict[str, bytes]) -> None:
        """Add a sequence and its encoded pictures by file name.

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
            self.close()
        self._sequences.append(sequence)
        self._pictures |= pictures
        self._size += size

    def close(self) -> None:
        """Write what is left."""
        if not self._sequences:
            return
        path = self.folder / f"shard-{len(self.written):03d}.zip"
        block = {
            "format": FORMAT,
            "classes": self.classes,
            "sequences": [asdict(sequence) for sequence in self._sequences],
        }
        partial = path.with_name(path.name + ".partial")
        # Stored, not deflated: the pictures are compressed already.
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("labels.json", json.dumps(block, separators=(",", ":")))
            for name, data in self._pictures.items():
                archive.writestr(name, data)
        partial.replace(path)
        self.written.append(path)
        self._sequences, self._pictures, self._size = [], {}, 0


class Shards:
    """All sequences of a folder of shards, pictures read on demand.

    Attributes:
        classes: class names by label.
        sequences: all sequences, in order of shards.
    """

    def __init__(self, folder: str | Path) -> None:
        paths = sorted(Path(folder).glob("shard-*.zip"))
        if not paths:
            raise ShardError(f"{folder}: no shard-*.zip in it; make them with python -m jobs.pack")
        self.classes: list[str] = []
        self.sequences: list[LabelledSequence] = []
        self._home: list[Path] = []
        self._open: dict[Path, zipfile.ZipFile] = {}
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
            frames = [LabelledFrame(**frame) for frame in entry.pop("frames")]
            self.sequences.append(LabelledSequence(**entry, frames=frames))
            self._home.append(path)

    def picture(self, sequence: int, frame: int) -> Image.Image:
        """Open one picture, RGB."""
        path = self._home[sequence]
        if path not in self._open:  # opened in the process that reads, never shared by fork
            self._open[path] = zipfile.ZipFile(path)
        data = self._open[path].read(self.sequences[sequence].frames[frame].file)
        return Image.open(io.BytesIO(data)).convert("RGB")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}


def encode_picture(pixels: np.ndarray, longest: int, quality: int = 82) -> tuple[bytes, float]:
    """Shrink (H, W, 3) uint8 RGB to at most `longest` pixels a side and encode it as WebP.

    Returns:
        the file's bytes, and the factor from source to stored pixels.
    """
    image = Image.fromarray(pixels)
    factor = min(1.0, longest / max(image.size))
    if factor < 1:
        size = (round(image.width * factor), round(image.height * factor))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue(), factor
