"""A folder that a bare GPU machine trains from, in parts that are carried there one by one.

    FOLDER/part-0/run.py              the command there
                  kit.json            stages and files, see `Kit`
                  code/               the packages model and pipeline
                  stages/NAME.json    the resolved config of each stage (`jobs.train --resolved`)
                  pieces/             of start weights, state and shards
           part-1/pieces/ …

Files are cut into pieces at the ends of parts, so parts are full whatever the sizes of files.
Paths in configs are relative to the folder that `join_kit` puts the files into.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

KIT = "kit.json"
SHARDS, START, STATE = "shards", "start.safetensors", "state.safetensors"
"""Where the joined files lie."""
Device = Literal["cuda", "cpu"]
_PACKAGES = ("model", "pipeline")
_SLACK = 500_000  # bytes of a part for kit.json and stages

_RUN = '''"""Train on this machine: python3 run.py --minutes 8"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    STARTED = time.monotonic()
    PART = Path(__file__).resolve().parent
    sys.path.insert(0, str(PART / "code"))
    from pipeline.kit.run import main

    sys.exit(main(sys.argv[1:], PART.parent, STARTED))
'''


class KitError(ValueError):
    """A kit that cannot be made or used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of several that follow each other.

    Attributes:
        name: of its config and of its output.
        share: of the time, beside the shares of the others.
    """

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file.

    Attributes:
        file: name of the file. number: of the piece in it. part: that carries it.
        start, stop: its bytes in the file.
    """

    file: str
    number: int
    part: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """Where it lies in the kit."""
        return f"part-{self.part}/pieces/{self.file.replace('/', '-')}.{self.number}"


@dataclass(frozen=True, slots=True)
class Kit:
    """What is in a kit.

    Attributes:
        stages: in the order they are trained in.
        pieces: of all files, each file's in order.
        device: `cuda`, or `cpu` for a rehearsal.
    """

    stages: tuple[Stage, ...]
    pieces: tuple[Piece, ...]
    device: Device

    @property
    def parts(self) -> int:
        """Number of parts."""
        return max((piece.part for piece in self.pieces), default=0) + 1


def lay_out(sizes: Mapping[str, int], limit: int, taken: int) -> list[Piece]:
    """Cut files so that parts are full.

    Args:
        sizes: bytes by name, in the order they are laid out in.
        limit: bytes of a part.
        taken: bytes that the first part holds already.

    Raises:
        KitError: what the first part holds already does not fit.
    """
    if taken >= limit:
        raise KitError(
            f"the code alone takes {taken / 1e6:.1f} MB, a part {limit / 1e6:g} MB; give a larger "
            "part_mb"
        )
    pieces, part, left = [], 0, limit - taken
    for name, size in sizes.items():
        start, number = 0, 0
        while start < size or not number:
            if not left:
                part, left = part + 1, limit
            stop = min(size, start + left)
            pieces.append(Piece(name, number, part, start, stop))
            left -= stop - start
            start, number = stop, number + 1
    return pieces


def write_kit(
    folder: str | Path,
    stages: Sequence[Stage],
    configs: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path | bytes],
    device: Device,
    limit: int,
) -> Kit:
    """Write a kit in the place of an earlier one.

    Args:
        folder: its parts go here.
        stages: in order.
        configs: resolved, by the name of the stage.
        files: by the name they have when joined: a file, or its bytes.
        device: see `Kit`.
        limit: bytes of a part at most.

    Raises:
        KitError: the folder holds something else, or a part is too small.
    """
    folder = Path(folder)
    _clear(folder)
    first = folder / "part-0"
    code = _copy_code(first / "code")
    sizes = {n: f.stat().st_size if isinstance(f, Path) else len(f) for n, f in files.items()}
    kit = Kit(tuple(stages), tuple(lay_out(sizes, limit, code + _SLACK)), device)
    for piece in kit.pieces:
        source, path = files[piece.file], folder / piece.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_slice(source, piece.start, piece.stop))
    (first / "run.py").write_text(_RUN)
    (first / "stages").mkdir()
    for name, config in configs.items():
        (first / "stages" / f"{name}.json").write_text(json.dumps(config, indent=2))
    (first / KIT).write_text(json.dumps(asdict(kit), indent=1))
    return kit


def read_kit(folder: str | Path) -> Kit:
    """Read what is in a kit.

    Raises:
        KitError: its first part is missing or damaged.
    """
    path = Path(folder) / "part-0" / KIT
    try:
        block = json.loads(path.read_text())
        stages = tuple(Stage(**stage) for stage in block["stages"])
        return Kit(stages, tuple(Piece(**piece) for piece in block["pieces"]), block["device"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"{path}: not readable ({error}); carry part-0 again") from error


def read_stage(folder: str | Path, stage: Stage) -> dict[str, Any]:
    """Read the resolved config of a stage.

    Raises:
        KitError: it is missing or damaged.
    """
    path = Path(folder) / "part-0" / "stages" / f"{stage.name}.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: not readable ({error}); carry part-0 again") from error
    return config


def join_kit(folder: str | Path, kit: Kit, target: str | Path) -> None:
    """Put the files of a kit together.

    Args:
        folder: where the parts are.
        kit: what is in them.
        target: where the files go.

    Raises:
        KitError: a piece is missing or of another size; names the parts to carry.
    """
    folder, target = Path(folder), Path(target)
    bad = {
        piece.part
        for piece in kit.pieces
        if not (path := folder / piece.path).is_file()
        or path.stat().st_size != piece.stop - piece.start
    }
    if bad:
        names = ", ".join(f"part-{part}" for part in sorted(bad))
        raise KitError(f"{folder}: {names} of {kit.parts} parts not whole here; carry them first")
    for piece in kit.pieces:
        path = target / piece.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if piece.number else "wb") as file:
            file.write((folder / piece.path).read_bytes())


def calls(folder: str, kit: Kit, minutes: float = 8.0) -> str:
    """Text that says what to carry, in which call, and what to run in it.

    Args:
        folder: of the kit, as it is called where calls are made from.
        kit: what is in it.
        minutes: of the one command.
    """
    seconds = round(60 * minutes) + 45
    lines = [
        "What is carried to the GPU machine, a part a call; what lies there stays. Make the calls",
        "one after the other, without a break, and give the machine back after the last one. Git",
        "must ignore the folder, or all of it would be carried in every call.",
        "",
    ]
    for part in range(kit.parts):
        last = part == kit.parts - 1
        command = f"ls {folder}"
        if last:
            command = f"python3 {folder}/part-0/run.py --minutes {minutes:g}"
        limit = seconds if last else 30
        lines.append(f'call {part + 1}: carry ["{folder}/part-{part}"], timeout_s {limit}')
        lines.append(f"        {command}")
    lines += ["", "Then: vsdmot kit-back FOLDER_OF_WHAT_CAME_BACK FILE", ""]
    return "\n".join(lines)


def _clear(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "part-0" / KIT).is_file():
            raise KitError(f"{folder}: holds something else than a kit; give another output")
        for part in folder.glob("part-*"):
            shutil.rmtree(part)
    folder.mkdir(parents=True, exist_ok=True)


def _copy_code(target: Path) -> int:
    """Copy the packages; returns their bytes."""
    root, total = Path(__file__).resolve().parents[2], 0
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            copy = target / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            total += path.stat().st_size
    return total


def _slice(source: Path | bytes, start: int, stop: int) -> bytes:
    if isinstance(source, bytes):
        return source[start:stop]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)
