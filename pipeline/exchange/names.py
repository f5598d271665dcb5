"""Names of sequences, for formats that call a video by a short name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from pipeline.exchange.errors import ExportError

_CONTAINERS = ("video", "img1", "images", "frames")


def sequence_name(relative_path: str) -> str:
    """The sequence of a video: its file name, or its folder if the file is called video.mp4."""
    path = PurePosixPath(relative_path)
    if path.stem.lower() in _CONTAINERS and path.parent.name:
        return path.parent.name
    return path.stem


class TextFiles:
    """Names of the text files of a run's videos, each given once."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._given: set[str] = set()

    def of(
        self, relative_path: str, names: Callable[[str], list[str]] = lambda name: [f"{name}.txt"]
    ) -> list[str]:
        """The files of a video.

        Args:
            relative_path: path of the video in the archive.
            names: names of the files of a sequence.

        Raises:
            ExportError: another video has one of them already.
        """
        files = names(sequence_name(relative_path))
        if taken := self._given.intersection(files):
            raise ExportError(
                f"{self._run}: two videos would both be {min(taken)} ({relative_path} is the "
                "second); export one of them with videos=, or track them into runs of their own"
            )
        self._given.update(files)
        return files
