"""The folder of a kit, in parts that are copied to a GPU machine one after the other.

    FOLDER/part-0/run.py              the command to run there
                  kit.json            stages and files, see `Kit`
                  code/               the packages model and pipeline
                  stages/NAME.json    the resolved settings of each stage of a training, for
                                      `jobs.train --resolved`
                  pieces/             of weights, and of what else the command reads
           part-1/pieces/ …

A file that does not fit into the rest of a part is cut, and continues in the next part. So all
parts but the last are full. Paths in the settings are relative to the folder that `join_kit`
writes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

KIT = "kit.json"
SHARDS, START, STATE = "shards", "start.safetensors", "state.safetensors"
"""Names of the joined files."""
Device = Literal["cuda", "cpu"]
Command = Literal["run", "gpu_run"]
_PACKAGES = ("model", "pipeline")
# Rooms of `pipeline` that nothing a kit runs imports.
_NOT_NEEDED = frozenset({"benchmark", "compaction", "report", "speed", "trackers"})
_SLACK = 500_000  # bytes reserved in the first part for kit.json and stages

_RUN = '''"""The command of this kit: python3 run.py --minutes N"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    STARTED = time.monotonic()
    PART = Path(__file__).resolve().parent
    sys.path.insert(0, str(PART / "code"))
    from pipeline.kit.{command} import main

    sys.exit(main(sys.argv[1:], PART.parent, STARTED))
'''


class KitError(ValueError):
    """The kit cannot be made or used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One of several trainings in a row.

    Attributes:
        name: name of its settings file and of its output.
        share: its time relative to the shares of the other stages.
    """

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file.

    Attributes:
        file: name of the file.
        number: number of the piece in the file.
        part: number of the part that contains it.
        start, stop: first byte in the file, and the byte after the last.
    """

    file: str
    number: int
    part: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """Its path in the kit."""
        return f"part-{self.part}/pieces/{self.file.replace('/', '-')}.{self.number}"


@dataclass(frozen=True, slots=True)
class Kit:
    """Contents of a kit.

    Attributes:
        stages: in the order of training.
        pieces: pieces of all files, in order.
        device: `cuda`, or `cpu` for a test of the kit.
    """

    stages: tuple[Stage, ...]
    pieces: tuple[Piece, ...]
    device: Device

    @property
    def parts(self) -> int:
        """Number of parts."""
        return max((piece.part for piece in self.pieces), default=0) + 1


def lay_out(sizes: Mapping[str, int], limit: int, taken: int) -> list[Piece]:
    """Cut files into pieces that fill the parts.

    Args:
        sizes: bytes of each file by name, in order.
        limit: greatest size of a part in bytes.
        taken: bytes of the first part that are used already.

    Raises:
        KitError: the used bytes do not fit into the first part.
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
    command: Command = "run",
) -> Kit:
    """Write a kit; an earlier one in the folder is replaced.

    Args:
        folder: folder for the parts.
        stages: in the order of training; none if the command is no training.
        configs: resolved settings by name of the stage.
        files: path or content of each file, by its name when joined.
        device: see `Kit`.
        limit: greatest size of a part in bytes.
        command: module of this room that `run.py` calls.

    Raises:
        KitError: the folder holds other files, or a part is too small.
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
    (first / "run.py").write_text(_RUN.format(command=command))
    (first / "stages").mkdir()
    for name, config in configs.items():
        (first / "stages" / f"{name}.json").write_text(json.dumps(config, indent=2))
    (first / KIT).write_text(json.dumps(asdict(kit), indent=1))
    return kit


def read_kit(folder: str | Path) -> Kit:
    """Read the contents of a kit.

    Raises:
        KitError: the first part is missing or damaged.
    """
    path = Path(folder) / "part-0" / KIT
    try:
        block = json.loads(path.read_text())
        stages = tuple(Stage(**stage) for stage in block["stages"])
        return Kit(stages, tuple(Piece(**piece) for piece in block["pieces"]), block["device"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(f"{path}: cannot be read ({error}); copy part-0 again") from error


def read_stage(folder: str | Path, stage: Stage) -> dict[str, Any]:
    """Read the resolved settings of a stage.

    Raises:
        KitError: the file is missing or damaged.
    """
    path = Path(folder) / "part-0" / "stages" / f"{stage.name}.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: cannot be read ({error}); copy part-0 again") from error
    return config


def join_kit(folder: str | Path, kit: Kit, target: str | Path) -> None:
    """Join the pieces of a kit to files.

    Args:
        folder: folder of the parts.
        kit: their contents.
        target: folder for the files.

    Raises:
        KitError: a piece is missing or has another size; names the parts to copy.
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
        raise KitError(
            f"{folder}: {names} of {kit.parts} parts are missing or incomplete; copy them first"
        )
    for piece in kit.pieces:
        path = target / piece.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if piece.number else "wb") as file:
            file.write((folder / piece.path).read_bytes())


def calls(folder: str, kit: Kit, minutes: float = 8.0) -> str:
    """Instructions for the calls that copy the parts and train, as text.

    Args:
        folder: folder of the kit, relative to the folder the calls are made from.
        kit: its contents.
        minutes: time of the training command.
    """
    seconds = round(60 * minutes) + 45
    lines = [
        "Each call copies one part to the GPU machine; earlier parts stay there. The last call",
        "also trains. Make the calls one after the other, without a break, and give the machine",
        "back after the last one. Git must ignore this folder, or each call would copy all of it.",
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
    lines += ["", "Then: vsdmot kit-back FOLDER_OF_RETURNED_FILES WEIGHTS_FILE", ""]
    return "\n".join(lines)


def _clear(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "part-0" / KIT).is_file():
            raise KitError(f"{folder}: holds other files than a kit; give another output")
        for part in folder.glob("part-*"):
            shutil.rmtree(part)
    folder.mkdir(parents=True, exist_ok=True)


def _copy_code(target: Path) -> int:
    """Copy the packages; return their size in bytes."""
    root, total = Path(__file__).resolve().parents[2], 0
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if set(path.relative_to(root).parts) & _NOT_NEEDED:
                continue
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
