"""Names of sequences, for formats that call a video by a short name."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.exchange.errors import ExportError

_CONTAINERS = ("video", "img1", "images", "frames")


def sequence_name(relative_path: str) -> str:
    """The sequence of a video: its file name, or its folder if the file is called video.mp4."""
    path = PurePosixPath(relative_path)
    if path.stem.lower() in _CONTAINERS and path.parent.name:
        return path.parent.name
    return path.stem


class SequenceNames:
    """Names of the sequences of a run, each given once."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._given: set[str] = set()

    def of(self, relative_path: str) -> str:
        """The name of a video.

        Raises:
            ExportError: another video has it already.
        """
        name = sequence_name(relative_path)
        if name in self._given:
            raise ExportError(
                f"{self._run}: two videos would both be {name}.txt ({relative_path} is the "
                "second); export one of them with videos=, or track them into runs of their own"
            )
        self._given.add(name)
        return name
