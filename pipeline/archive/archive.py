"""The videos of an archive, as a stream: headers are read, and those that are done left out."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, islice
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.archive.dead_letters import write_dead_letter
from pipeline.archive.id_set import IdSet
from pipeline.archive.manifest import Manifest, from_manifest, manifest_row
from pipeline.archive.survey import Surveyed, Unread, Unreadable, survey, unreadable
from pipeline.runtime.stop import Stopped
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.video.headers import HeaderReader
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits

HEADER_DEADLINE_S = 300.0
"""Seconds that one header may take, with slow storage and retries."""

_BATCH = 512  # files whose headers are read before the first of their videos is handed on
_AHEAD = 4096  # files listed ahead, of which the largest come first
_LARGEST = 32  # of these files that come with each batch

ReadHeaders = Callable[[Sequence[ArchiveFile]], Sequence[Surveyed]]
"""Reads headers, anywhere; a value for each file in their order."""


@dataclass(slots=True)
class Counts:
    """What was found in an archive so far.

    Attributes:
        files: Files that could be read, each once.
        skipped: Of them those that earlier runs tracked or made dead letters of.
        dead: Dead letters of this run, for files that are not videos.
        dead_before: Dead letters among the skipped.
        unread: Files on which storage failed.
        whole: Whether the whole archive has been gone through.
    """

    files: int = 0
    skipped: int = 0
    dead: int = 0
    dead_before: int = 0
    unread: int = 0
    whole: bool = False


class Archive:
    """Goes through the files of an archive and yields the videos that are to be tracked.

    Args:
        output: The output folder. It gets a dead letter for each file that is not a video.
        manifest: Of this run.
        done: Ids of videos that are done.
        dead: Ids that have a dead letter.
        read: Reads headers.
        unread: Called with the path of each file that storage failed on, and the reason.
        limits: Bounds on a video.
        conditional: Whether the output can refuse to create a file that exists.
        dead_letter: Called with each file that is not a video, in place of writing its dead letter.
    """

    def __init__(
        self,
        output: str,
        manifest: Manifest,
        *,
        done: IdSet,
        dead: IdSet,
        read: ReadHeaders,
        unread: Callable[[str, str], object],
        limits: Limits | None = None,
        conditional: bool = True,
        dead_letter: Callable[[Unreadable], object] | None = None,
    ) -> None:
        """Start with nothing found."""
        self.counts = Counts()
        self._output, self._manifest, self._read, self._unread = output, manifest, read, unread
        self._done, self._dead = done, dead
        self._limits, self._conditional = limits or Limits(), conditional
        self._dead_letter = dead_letter or self._write_dead_letter
        self._seen = IdSet()
        self._failure = ""

    def videos(
        self,
        files: Iterable[ArchiveFile | Unread],
        finished: Callable[[BinaryIO], object] = lambda manifest: None,
    ) -> Iterator[VideoInfo]:
        """The videos that are not done, roughly in the order of the files.

        Large files come early, because a long video at the end would leave workers idle. After
        the last file the manifest is written.

        Args:
            files: From `find_files`.
            finished: Called at the end with the manifest, open for reading.

        Raises:
            StorageError: No file can be read, or the output cannot be written.
        """
        for batch in _large_ones_early(files):
            yield from self._batch(batch)
        if self._failure and not self.counts.files:
            raise StorageError(self._failure)
        manifest = self._manifest.publish()
        self.counts.whole = True
        finished(manifest)

    def _batch(self, files: Sequence[ArchiveFile | Unread]) -> Iterator[VideoInfo]:
        for file in files:
            if isinstance(file, Unread):
                self._left_out(file)
        there = [file for file in files if not isinstance(file, Unread)]
        known, rows = self._manifest.look_up(there)
        yield from self._known(list(compress(there, known)), rows)
        yield from self._unknown(list(compress(there, ~known)))

    def _known(self, files: Sequence[ArchiveFile], rows: pa.Table) -> Iterator[VideoInfo]:
        """Videos of files whose header an earlier run has read."""
        # Most files of a second run are done. Of them no more than the id is looked at.
        ids = rows["video_id"].to_pylist()
        new = self._seen.add(ids)
        self._manifest.keep(rows.filter(pa.array(new)))
        to_do = new & ~self._recorded(ids, new)
        values = rows.filter(pa.array(to_do)).to_pylist()
        for file, row in zip(compress(files, to_do), values, strict=True):
            yield from self._video(file, from_manifest(file, row))

    def _unknown(self, files: Sequence[ArchiveFile]) -> Iterator[VideoInfo]:
        """Videos of files whose header has to be read."""
        found = []
        for file, item in zip(files, self._read(files) if files else (), strict=True):
            if isinstance(item, Unread):
                self._left_out(item)
            else:
                found.append((file, item))
        ids = [item.video_id for _, item in found]
        new = self._seen.add(ids)
        to_do = new & ~self._recorded(ids, new)
        for pair in compress(found, to_do):
            yield from self._video(*pair)
        self._manifest.add([manifest_row(*pair) for pair in compress(found, new)])

    def _recorded(self, ids: Sequence[str], new: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Count files; returns which are done or have a dead letter."""
        dead = self._dead.has(ids)
        recorded = dead | self._done.has(ids)
        self.counts.files += int(new.sum())
        self.counts.skipped += int((new & recorded).sum())
        self.counts.dead_before += int((new & dead).sum())
        return recorded

    def _video(self, file: ArchiveFile, item: VideoInfo | Unreadable) -> Iterator[VideoInfo]:
        """The video of a file, or a dead letter."""
        refusal = self._limits.refusal(item) if isinstance(item, VideoInfo) else None
        if refusal is not None:  # read by an earlier run with wider limits
            item = unreadable(file, item.video_id, f"refused: {refusal}")
        if isinstance(item, VideoInfo):
            yield item
            return
        self.counts.dead += 1
        self._dead_letter(item)

    def _write_dead_letter(self, item: Unreadable) -> None:
        write_dead_letter(
            self._output,
            video_id=item.video_id,
            uri=item.uri,
            relative_path=item.relative_path,
            stage="probe",
            kind=item.kind,
            message=item.error,
            conditional=self._conditional,
        )

    def _left_out(self, file: Unread) -> None:
        self._failure = self._failure or file.reason
        self.counts.unread += 1
        self._unread(file.relative_path, file.reason)


class HeaderPlace:
    """Where headers are read: first on this machine, then by a cluster once there is one."""

    def __init__(self, read: ReadHeaders) -> None:
        """Begin with this place."""
        self._read = read

    def __call__(self, files: Sequence[ArchiveFile]) -> Sequence[Surveyed]:
        """Read headers; a value for each file in their order."""
        return self._read(files)

    def moved(self, read: ReadHeaders) -> ReadHeaders:
        """Read the next headers in another place; returns the place before."""
        before, self._read = self._read, read
        return before


@contextmanager
def read_here(threads: int, limits: Limits) -> Iterator[ReadHeaders]:
    """Reads headers on this machine, in a process that a bad file may crash.

    A thread that still reads when the body ends gets `Stopped`.

    Args:
        threads: Headers read at once.
        limits: Bounds on a video.
    """
    over = threading.Event()

    with HeaderReader(threads, limits, HEADER_DEADLINE_S) as reader:

        def probe(file: ArchiveFile) -> VideoInfo:
            if over.is_set():
                raise Stopped("headers are not wanted any more")
            return reader.probe(file)

        try:
            yield lambda files: list(survey(files, threads, probe))
        finally:
            over.set()


def _large_ones_early(
    files: Iterable[ArchiveFile | Unread],
) -> Iterator[list[ArchiveFile | Unread]]:
    """The files in batches, nearly in their order: large ones come before smaller ones."""

    def size(index: int) -> int:
        file = waiting[index]
        return 0 if isinstance(file, Unread) else file.size

    remaining = iter(files)
    waiting = list(islice(remaining, _AHEAD))
    while waiting:
        first = min(_BATCH, len(waiting))
        large = heapq.nlargest(_LARGEST, range(first, len(waiting)), key=size)
        batch = {*range(first), *large}
        yield [waiting[index] for index in sorted(batch)]
        waiting = [file for index, file in enumerate(waiting) if index not in batch]
        waiting += islice(remaining, _AHEAD - len(waiting))
