"""Saved places of a pass over a video, from which another worker goes on.

Part n of a video holds the rows since part n - 1, and all that the rest of the pass depends on:
tracks, decoder, rows to carry, looks. Its commit names the rows of all parts so far, so a commit
and the files it names are a whole beginning of the video.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import torch
from safetensors import SafetensorError

from model.track.slots import with_slots
from model.track.tracks import TrackState
from pipeline.inference.runtime import Runtime
from pipeline.stitching.looks import Looks
from pipeline.storage.schema import to_parquet_bytes
from pipeline.tracking.parts import PartError, PartFolder, PartRows, json_bytes, json_values
from pipeline.tracking.spool import stored_rows
from pipeline.tracking.tables import Columns, VideoTables, WindowRows
from pipeline.video.entry import KeyAt
from pipeline.video.place import DecodeState

_COMMIT = ".state.safetensors"
_KEY = "vsdmot_part"


@dataclass(slots=True)
class Spent:
    """Seconds that tracking a video has taken so far, and how far decoding came.

    Attributes:
        decode_wait_s: Seconds in which the model waited for frames.
        decode_busy_s: Seconds in which the decode thread worked.
        encode_s, step_s: Seconds of encoding and stepping.
        write_s: Seconds of writing rows and parts.
        elapsed_s: Seconds of the clock.
        frames_decoded: Frames read, also those that sampling leaves out.
        error: The reason why decoding stopped before the end of the video; None if it did not.
    """

    decode_wait_s: float = 0.0
    decode_busy_s: float = 0.0
    encode_s: float = 0.0
    step_s: float = 0.0
    write_s: float = 0.0
    elapsed_s: float = 0.0
    frames_decoded: int = 0
    error: str | None = None


@dataclass(slots=True)
class PassState:
    """Where a pass over a video is, between two windows of frames.

    Attributes:
        decoding: Where decoding goes on: a state, or a time in seconds; None is the start.
        tracks: The tracks; None before the first window.
        last: Rows of the last encoded frame, which still frames repeat.
        carried: Still frames since then.
        looks: Looks of all tracks so far; None if nobody needs them.
        spent: Of all attempts.
        repairs: What was done about parts that could not be used.
        frames: Frames of the video before this place; of a window, since its start.
        last_s: Time of the last frame before this place; -inf before the first.
        tracked, encoded: Frames that this attempt has tracked, and those of them it has encoded.
        video_s: Seconds of video that this attempt has tracked.
        clock_restarted, entered, keys: As of `FrameStream`; set at the end of the pass.
    """

    decoding: DecodeState | float | None = None
    tracks: TrackState | None = None
    last: WindowRows | None = None
    carried: int = 0
    looks: Looks | None = None
    spent: Spent = field(default_factory=Spent)
    repairs: list[str] = field(default_factory=list)
    frames: int = 0
    last_s: float = -math.inf
    tracked: int = 0
    encoded: int = 0
    video_s: float = 0.0
    clock_restarted: bool = False
    entered: KeyAt | None = None
    keys: list[KeyAt] = field(default_factory=list)


class Saves:
    """Saves the place of a pass as a part, every so many seconds of video.

    Used as a context manager, which deletes the rows that are not saved.
    """

    def __init__(
        self,
        folder: PartFolder,
        seconds: float,
        committed: Callable[[], None] = lambda: None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Nothing is written before `add`.

        Args:
            folder: The parts of the video.
            seconds: Seconds of video between two parts.
            committed: Called after each part.
            notice: Called with a part that cannot be used, and the reason.

        Raises:
            SpoolError: No temporary folder can be written.
        """
        self._folder, self._seconds = folder, seconds
        self._committed, self._notice = committed, notice
        self._next_s: float | None = None
        self._files: dict[str, str] = {}
        self.number = 0
        """Number of the next part."""
        self._rows = PartRows(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.__exit__()

    def restore(
        self,
        tracker: Runtime,
        tables: VideoTables,
        below: int | None = None,
        reason: str | None = None,
    ) -> PassState:
        """Find the last place that was saved, and read the rows before it.

        Parts that cannot be used are told once, named in `repairs` of the place, and removed.

        Args:
            tracker: Of whose state the saved ones have to be.
            tables: Empty; get the rows.
            below: Only parts of lower numbers are looked at; None looks at all.
            reason: Why the others cannot be used.

        Returns:
            The place after the last good part; the start if there is none.

        Raises:
            SpoolError: The temporary folder is full.
            OutputError: Parts cannot be removed.
            StorageError: The parts cannot be read.
        """
        numbers = {
            int(name.removesuffix(_COMMIT))
            for name in self._folder.names()
            if name.endswith(_COMMIT) and name.removesuffix(_COMMIT).isdecimal()
        }
        usable = sorted((n for n in numbers if below is None or n < below), reverse=True)
        place = PassState()
        with ExitStack() as stack:
            copies: dict[tuple[str, str], BinaryIO] = {}
            for number in usable:
                try:
                    place, files = self._read(number, tracker.initial_state(1))
                    for file in files.items():
                        if file not in copies:
                            copies[file] = stack.enter_context(self._folder.fetch(*file))
                except PartError as error:
                    reason, place = reason or str(error), PassState()
                    continue
                self._files, self.number = files, number + 1
                self._next_s = self._multiple_after(place.last_s)
                break
            # In the order of the parts: JSON does not keep that of its names.
            for file in sorted(self._files.items(), key=lambda f: int(f[0].partition(".")[0])):
                append = tables.add_tracks if ".tracks." in file[0] else tables.add_frames
                for rows in stored_rows(copies[file]):
                    append(rows)
        for number in numbers:
            if number >= self.number:
                self._folder.remove(f"{number}{_COMMIT}")
        if reason is not None:
            after = f"part {self.number - 1}" if self.number else "the start"
            text = f"a saved state could not be used ({reason}), so tracking went on from {after}"
            place.repairs.append(text)
            self._notice(f"{self._folder.video_id}: {text}")
        return place

    def add(self, rows: WindowRows, place: PassState) -> None:
        """Take the rows of the next frames, and save the place after them if it is time.

        Raises:
            SpoolError: The temporary folder is full.
            StorageError: The part cannot be written.
        """
        self._rows.add(rows)
        if self._next_s is None:
            self._next_s = self._multiple_after(float(rows.frames["time_s"][0]))
        if place.last_s >= self._next_s and isinstance(place.decoding, DecodeState):
            self._save(place)
            self._next_s = self._multiple_after(place.last_s)

    def _multiple_after(self, time_s: float) -> float:
        return (math.floor(time_s / self._seconds) + 1) * self._seconds

    def _save(self, place: PassState) -> None:
        stem = str(self.number)
        files = self._files | self._rows.publish(stem)
        self._folder.write(stem + _COMMIT, _packed(place, self._folder.identity, files))
        self._files, self.number = files, self.number + 1
        self._rows.__exit__()
        self._rows = PartRows(self._folder)
        self._committed()

    def _read(self, number: int, like: TrackState) -> tuple[PassState, dict[str, str]]:
        """A saved place, and the SHA-256 of the files with the rows before it.

        Raises:
            PartError: It cannot be used.
        """
        name = f"{number}{_COMMIT}"
        arrays, values = _unpacked(self._folder.read(name), name)
        self._folder.check(values, name)
        tensors = {k: torch.from_numpy(v) for k, v in _below("tracks.", arrays).items()}
        try:
            tracks = TrackState.from_tensors(tensors, like)
            decoding = DecodeState.unpack(_below("decoding.", arrays), values["decoding"])
        except ValueError as error:
            raise PartError(f"{name}: {error}") from error
        looks = None
        if "looks" in arrays:
            looks = Looks.from_arrow(pq.read_table(pa.BufferReader(arrays["looks"].tobytes())))
        place = PassState(
            decoding=decoding,
            tracks=with_slots(tracks, like.active.shape[1]),
            last=_last_rows(arrays, values["last_classes"]),
            looks=looks,
            spent=Spent(**values["spent"]),
            repairs=values["repairs"],
            carried=values["carried"],
            frames=values["frames"],
            last_s=values["last_s"],
        )
        return place, values["files"]


def _packed(place: PassState, identity: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """A place as the bytes of the commit of its part."""
    assert isinstance(place.decoding, DecodeState) and place.tracks is not None
    decoding, values = place.decoding.pack()
    arrays = {f"decoding.{name}": array for name, array in decoding.items()}
    for name, tensor in place.tracks.tensors().items():
        arrays[f"tracks.{name}"] = tensor.cpu().numpy()
    classes: list[str] | None = None
    if place.last is not None:
        tracks = dict(place.last.tracks)
        classes = tracks.pop("class_name").tolist()
        arrays |= {f"last.tracks.{name}": column for name, column in tracks.items()}
        arrays |= {f"last.frames.{name}": column for name, column in place.last.frames.items()}
    if place.looks is not None:
        arrays["looks"] = np.frombuffer(to_parquet_bytes(place.looks.to_arrow()), np.uint8)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    block = {
        **identity,
        "arrays": _digest(arrays),
        "files": dict(files),
        "decoding": values,
        "last_classes": classes,
        "spent": asdict(place.spent),
        "repairs": place.repairs,
        "carried": place.carried,
        "frames": place.frames,
        "last_s": place.last_s,
    }
    return safetensors.numpy.save(arrays, metadata={_KEY: json_bytes(block).decode()})


def _unpacked(data: bytes, name: str) -> tuple[Columns, dict[str, Any]]:
    """Arrays and values of a commit.

    Raises:
        PartError: It is damaged.
    """
    try:
        arrays = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        block = header["__metadata__"][_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise PartError(f"{name} is damaged ({error})") from error
    values = json_values(block.encode(), name)
    if values.get("arrays") != _digest(arrays):
        raise PartError(f"{name} is damaged")
    return arrays, values


def _digest(arrays: Columns) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _below(prefix: str, arrays: Columns) -> Columns:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _last_rows(arrays: Columns, classes: list[str] | None) -> WindowRows | None:
    if classes is None:
        return None
    tracks = _below("last.tracks.", arrays)
    return WindowRows(
        tracks | {"class_name": np.array(classes, object)}, _below("last.frames.", arrays)
    )
