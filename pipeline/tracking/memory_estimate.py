"""Memory that a run needs, by actor, compared with the machine before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from model.net.config import ModelConfig
from pipeline.storage.schema import FRAMES, TRACKS
from pipeline.tracking.spool import GROUP_ROWS
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits, frames_guessed

_MIB = 1024 * 1024
# Measured on CPU (docs/guarantees.md says how): a process with torch, Ray and the decoders loaded,
# and what encoding keeps at once, in bytes a pixel of the canvas and frame of the window.
_PROCESS = 700 * _MIB
_ENCODE_BYTES = 750
_DECODED_FRAMES = 24  # references and frame threads of a decoder
_BYTES_PIXEL = 3  # 4:2:0 at more than eight bits; deeper and fuller formats are rare
_TRACKS_FRAME = 20  # people in a frame, over a whole video
_ROW_COPIES = 3  # columns, their Arrow table, the row group as it is encoded
_FIXED_WIDTH = 8  # bytes of a value in a column, text by its dictionary
_SUMMED_UP = 16  # bytes a frame: quality and its copy for percentiles, a counter for a new track


class MemoryRefused(ValueError):
    """The run would not fit into this machine's memory; the message names the settings to turn."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that one actor needs at its peak, part by part."""

    process: int
    encode: int
    queue: int
    decoder: int
    rows: int

    @property
    def total(self) -> int:
        """Bytes of an actor."""
        return self.process + self.encode + self.queue + self.decoder + self.rows

    def __str__(self) -> str:
        parts = {
            "process": self.process,
            "encoding": self.encode,
            "queue": self.queue,
            "decoder": self.decoder,
            "rows": self.rows,
        }
        inside = ", ".join(f"{name} {size / _MIB:.0f}" for name, size in parts.items())
        return f"{self.total / _MIB:.0f} MiB ({inside})"


def estimate(
    model: ModelConfig, window: int, queue_size: int, videos: Iterable[VideoInfo], limits: Limits
) -> MemoryEstimate:
    """What one actor needs at most for these videos.

    It is bounded by settings and by the largest picture. Rows wait on disk; of them a row group of
    each table is in memory, or two parts of an upload, and what the row of `videos` sums up, which
    is 16 bytes a frame of the longest video.

    Args:
        model: The student's.
        window: Frames encoded as one batch.
        queue_size: Decoded frames that wait.
        videos: The work.
        limits: Bounds on a video.
    """
    canvas = model.input_height * model.input_width
    pixels = frames = 0
    for info in videos:
        pixels = max(pixels, info.width * info.height)
        frames = max(frames, min(frames_guessed(info), limits.max_frames))
    groups = sum(
        _FIXED_WIDTH * len(schema.names) * min(frames * rows, GROUP_ROWS)
        for schema, rows in ((FRAMES, 1), (TRACKS, _TRACKS_FRAME))
    )
    return MemoryEstimate(
        process=_PROCESS,
        encode=_ENCODE_BYTES * canvas * window,
        queue=(queue_size + 2 * window) * (3 * canvas + 8 * 64 * 64),
        decoder=pixels * _BYTES_PIXEL * _DECODED_FRAMES,
        rows=_ROW_COPIES * groups + _SUMMED_UP * frames,
    )


def check_memory(need: MemoryEstimate, actors: int, on_gpu: bool) -> None:
    """Refuse a run that does not fit into this machine.

    Args:
        need: One actor's.
        actors: How many run on this machine.
        on_gpu: Encoding then takes the GPU's memory, which is not looked at.

    Raises:
        MemoryRefused: It does not fit; the message says what to turn.
    """
    each = need.total - (need.encode if on_gpu else 0)
    there = machine_memory()
    if each * actors > there:
        raise MemoryRefused(
            f"{actors} actors need {each * actors / _MIB:.0f} MiB and {there / _MIB:.0f} MiB are "
            f"free; one: {need}. Turn down cluster.workers, decode.window or decode.queue_size; if "
            "'decoder' is the large part, limits.max_pixels keeps out the largest pictures"
        )


def machine_memory() -> int:
    """Bytes that are free here, within what a container allows."""
    free = int(psutil.virtual_memory().available)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup") / name
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text))
    return free
