"""Files cut into numbered pieces, `NAME.0`, `NAME.1`, …, that fit through a narrow way."""

import re
from pathlib import Path

from pipeline.training.run_folder import RunFolder


class PieceError(ValueError):
    """Pieces that do not make a file; the message names them and the remedy."""


def write_pieces(folder: str | Path, name: str, data: bytes, limit: int) -> None:
    """Write a file as pieces of at most `limit` bytes, in the place of earlier ones of its name."""
    there = RunFolder(str(folder))
    written = set()
    for number, start in enumerate(range(0, max(1, len(data)), limit)):
        written.add(f"{name}.{number}")
        there.write(f"{name}.{number}", data[start : start + limit])
    for path in _pieces(folder, name):
        if path.name not in written:
            path.unlink()


def read_pieces(folder: str | Path, name: str) -> bytes:
    """Join the pieces of a file.

    Raises:
        PieceError: there are none, or there is a gap in their numbers. A missing last one is not
            seen here.
    """
    found = _pieces(folder, name)
    wanted = [f"{name}.{number}" for number in range(max(1, len(found)))]
    missing = [piece for piece in wanted if piece not in {path.name for path in found}]
    if missing:
        raise PieceError(f"{folder}: {missing[0]} is missing; copy all that came back")
    return b"".join(path.read_bytes() for path in found)


def _pieces(folder: str | Path, name: str) -> list[Path]:
    pattern = re.compile(re.escape(name) + r"\.(\d+)")
    numbered = [(m, p) for p in Path(folder).glob("*") if (m := pattern.fullmatch(p.name))]
    return [path for match, path in sorted(numbered, key=lambda pair: int(pair[0][1]))]
