"""Parts of long videos: files of the output with what is tracked of a video that is not done.

The parts of a video lie in ``parts/<video_id>/`` until its row in `videos` is written. A part is a
few files; the last one, which commits it, names the SHA-256 of the others. So a reader finds a
whole part or none, also if two runs write the same part at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pipeline.archive.id_set import IdSet
from pipeline.archive.plan import Mode
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError, explained
from pipeline.storage.schema import SCHEMA_VERSION
from pipeline.tracking.spool import RowSpools, spooling
from pipeline.tracking.tables import WindowRows

PART_FORMAT = 3
"""Version of the files of parts."""
_CHUNK = 1 << 20  # bytes copied at once


class PartError(ValueError):
    """A part cannot be used: it is missing, damaged, or of another model, run or version."""


class OutputError(StorageError):
    """A part cannot be written to the output, so other videos could not either."""


@dataclass(frozen=True, slots=True)
class PartFolder:
    """The parts of one video in one output.

    Attributes:
        output: The output folder.
        video_id: The video. Its id changes with the content of the file.
        model_sha256, config_hash: What the rows depend on beside the video.
    """

    output: str
    video_id: str
    model_sha256: str
    config_hash: str

    def uri(self, name: str) -> str:
        """Path or URL of one file."""
        return f"{self.output.rstrip('/')}/parts/{self.video_id}/{name}"

    def names(self) -> set[str]:
        """Names of all files."""
        return storage.list_stems(self.uri("").rstrip("/"), "")

    def clear(self) -> None:
        """Remove all files. What cannot be removed does no harm, and the next run tries again."""
        with suppress(StorageError):
            # Commits first, so that none names a file that is gone.
            for name in sorted(self.names(), key=lambda name: name.endswith(".parquet")):
                storage.remove(self.uri(name))
        if "://" not in self.output:  # in a bucket a folder ends with its last file
            with suppress(OSError):
                os.rmdir(self.uri(""))

    @property
    def identity(self) -> dict[str, Any]:
        """What a part must agree with to be used, for its commit."""
        return {
            "format": PART_FORMAT,
            "schema_version": SCHEMA_VERSION,
            "video_id": self.video_id,
            "model_sha256": self.model_sha256,
            "config_hash": self.config_hash,
        }

    def check(self, found: Mapping[str, Any], name: str) -> None:
        """Check that a commit is of this video and run.

        Raises:
            PartError: It is not.
        """
        for key, expected in self.identity.items():
            if found.get(key) != expected:
                raise PartError(f"{name}: {key} is {found.get(key)!r}, not {expected!r}")

    def publish(self, name: str, source: BinaryIO) -> str:
        """Write a file from one on this machine's disk; returns its SHA-256.

        Raises:
            OutputError: It cannot be written.
        """
        source.seek(0)
        digest = hashlib.file_digest(cast(Any, source), "sha256").hexdigest()
        with _writing():
            storage.publish(self.uri(name), source)
        return digest

    def write(self, name: str, data: bytes) -> str:
        """As `publish`, a small file."""
        with _writing():
            storage.write_atomic(self.uri(name), data)
        return hashlib.sha256(data).hexdigest()

    def remove(self, name: str) -> None:
        """Remove a file, if it exists; errors as of `publish`."""
        with _writing():
            storage.remove(self.uri(name))

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            PartError: It is missing.
            StorageError: It cannot be read.
        """
        try:
            return storage.read_bytes(self.uri(name))
        except StorageError as error:
            raise _missing(name, error) from error

    def fetch(self, name: str, sha256: str) -> BinaryIO:
        """A copy of a file on this machine's disk, without a name in its folder.

        Raises:
            PartError: The file is missing or has other content.
            SpoolError: The copy cannot be written.
            StorageError: The file cannot be read.
        """
        try:
            source = storage.open_binary(self.uri(name))
        except StorageError as error:
            raise _missing(name, error) from error
        digest = hashlib.sha256()
        with source, spooling(self.video_id):
            temporary = tempfile.TemporaryFile(prefix="vsdmot-")  # noqa: SIM115, returned
            copy = cast(BinaryIO, temporary)
            try:
                while chunk := self._chunk(source, name):
                    digest.update(chunk)
                    copy.write(chunk)
                if digest.hexdigest() != sha256:
                    raise PartError(f"{name} is damaged, or of another run")
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
        return copy

    def _chunk(self, source: BinaryIO, name: str) -> bytes:
        with explained(self.uri(name), "read"):
            return source.read(_CHUNK)


class PartRows(RowSpools):
    """The rows of a part while it is tracked, on disk as `TableSpool` keeps them."""

    TABLES = ("tracks", "frames")

    def __init__(self, folder: PartFolder) -> None:
        """Open the tables; errors as of `RowSpools`."""
        super().__init__(folder.video_id)
        self._folder = folder

    def add(self, window: WindowRows) -> None:
        """Append the rows of the next frames.

        Raises:
            SpoolError: The temporary folder is full.
        """
        self.tracks.add(window.tracks)
        self.frames.add(window.frames)

    def publish(self, stem: str) -> dict[str, str]:
        """Write both tables; returns the SHA-256 of each file by its name."""
        spools = zip(self.TABLES, (self.tracks, self.frames), strict=True)
        names = {f"{stem}.{table}.parquet": spool for table, spool in spools}
        return {name: self._folder.publish(name, s.finished()) for name, s in names.items()}


def begun_videos(output: str, done: IdSet, dead: IdSet) -> dict[str, Mode]:
    """Modes of the videos that earlier runs began, by id; parts of finished ones are removed."""
    begun, over = modes_begun(output, done, dead)
    clear_parts(output, over)
    return begun


def modes_begun(output: str, done: IdSet, dead: IdSet) -> tuple[dict[str, Mode], list[str]]:
    """Modes of the videos that earlier runs began, by id, and ids of finished ones with parts."""
    begun: dict[str, Mode] = {}
    over = []
    for video_id in storage.iter_stems(f"{output}/parts", ""):
        if video_id in done or video_id in dead:
            over.append(video_id)
        elif names := PartFolder(output, video_id, "", "").names():
            windows = any(name.startswith("w") for name in names)
            begun[video_id] = "parallel" if windows else "resume"
    return begun, over


def clear_parts(output: str, finished: Collection[str]) -> None:
    """Remove what is left of the parts of finished videos, after a run that died while removing.

    Args:
        output: The output folder.
        finished: Ids of videos that have a row in `videos` or a dead letter.
    """
    for video_id in storage.list_stems(f"{output.rstrip('/')}/parts", "") & set(finished):
        PartFolder(output, video_id, "", "").clear()


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """Values as JSON with their own hash, which `json_values` checks."""
    text = json.dumps(values, sort_keys=True)
    return json.dumps({"sha256": _sha256(text), "values": text}).encode()


def json_values(data: bytes, name: str) -> dict[str, Any]:
    """What `json_bytes` has written.

    Raises:
        PartError: The file is damaged.
    """
    try:
        block = json.loads(data)
        if block["sha256"] != _sha256(block["values"]):
            raise ValueError("its hash is another one")
        values: dict[str, Any] = json.loads(block["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise PartError(f"{name} is damaged ({error})") from error
    return values


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise OutputError(str(error)) from error


def _missing(name: str, error: StorageError) -> Exception:
    """The error of a part for a file that is not there, else the error of the storage."""
    absent = isinstance(error.__cause__, FileNotFoundError)
    return PartError(f"{name} is missing") if absent else error
