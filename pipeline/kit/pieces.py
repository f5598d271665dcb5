"""Files that are cut into numbered pieces, `NAME.0`, `NAME.1` and so on, of limited size."""

import re
from pathlib import Path

from pipeline.training.run_folder import RunFolder


class PieceError(ValueError):
    """Pieces of a file are missing; the message names the first one and the remedy."""


def write_pieces(folder: str | Path, name: str, data: bytes, limit: int) -> None:
    """Write a file as pieces of at most `limit` bytes; earlier pieces of its name are replaced."""
    target = RunFolder(str(folder))
    written = set()
    for number, start in enumerate(range(0, max(1, len(data)), limit)):
        written.add(f"{name}.{number}")
        target.write(f"{name}.{number}", data[start : start + limit])
    for path in _pieces(folder, name):
        if path.name not in written:
            path.unlink()


def read_pieces(folder: str | Path, name: str) -> bytes:
    """Join the pieces of a file.

    Raises:
        PieceError: there are no pieces, or their numbers have a gap. A missing last piece is not
            noticed.
    """
    found = _pieces(folder, name)
    wanted = [f"{name}.{number}" for number in range(max(1, len(found)))]
    missing = [piece for piece in wanted if piece not in {path.name for path in found}]
    if missing:
        raise PieceError(f"{folder}: {missing[0]} is missing; copy all files from the GPU machine")
    return b"".join(path.read_bytes() for path in found)


def _pieces(folder: str | Path, name: str) -> list[Path]:
    pattern = re.compile(re.escape(name) + r"\.(\d+)")
    numbered = [(m, p) for p in Path(folder).glob("*") if (m := pattern.fullmatch(p.name))]
    return [path for match, path in sorted(numbered, key=lambda pair: int(pair[0][1]))]
