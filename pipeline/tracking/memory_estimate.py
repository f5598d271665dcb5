"""Estimate of the RAM that an actor needs, and a check against the machine before the start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from model.net.config import ModelConfig
from pipeline.inference.runtime import takes_openvino
from pipeline.runtime.settings import Pool
from pipeline.storage.schema import FRAMES, TRACKS
from pipeline.tracking.spool import GROUP_ROWS
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits, frames_guessed

_MIB = 1024 * 1024
# Measured on CPU: a process with torch, OpenVINO, Ray, the decoders and the converted student, at
# its peak while it converts; and the activations of encoding, in bytes per pixel of the canvas and
# frame of the window. OpenVINO works on one frame at a time.
_PROCESS = 1150 * _MIB
_ENCODE_BYTES = 750
_OPENVINO_BYTES = 100
_DECODED_FRAMES = 24  # reference frames and frame threads of a decoder
_BYTES_PIXEL = 3  # 4:2:0 with more than eight bits; larger formats are rare
_TRACKS_FRAME = 20  # mean people per frame of a video
_ROW_COPIES = 4  # columns, those of a saved part, their Arrow table, the encoded row group
_FIXED_WIDTH = 8  # bytes of a value in a column; text is dictionary-encoded
# Bytes per frame: index and quality, the copy of quality for percentiles, and a tenth of the sums
# of a track. Less than one new track is expected in ten frames.
_SUMMARY = 64


class MemoryRefused(ValueError):
    """The run does not fit into this machine's RAM; the message names the settings to lower."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of RAM that one actor needs at its peak, by part."""

    process: int
    encode: int
    queue: int
    decoder: int
    rows: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
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
    model: ModelConfig,
    window: int,
    queue_size: int,
    videos: Iterable[VideoInfo],
    limits: Limits,
    streams: int = 1,
    in_openvino: bool = False,
) -> MemoryEstimate:
    """Upper estimate of the RAM of one actor for these videos.

    It depends on the settings, on the largest picture and on the longest video. Rows wait on disk.
    In RAM are one row group of each table, or two parts of an upload, and the values that the row
    of `videos` and the summaries of tracks are computed from.

    Args:
        model: Config of the student.
        window: Frames encoded as one batch.
        queue_size: Greatest number of decoded frames that wait for the model.
        videos: The videos of the run.
        limits: Bounds on a video.
        streams: Videos that an actor tracks at once.
        in_openvino: Whether the student runs in OpenVINO.
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
        encode=(_OPENVINO_BYTES if in_openvino else _ENCODE_BYTES) * canvas * window,
        queue=streams * (queue_size + 2 * window) * (3 * canvas + 8 * 64 * 64),
        decoder=streams * pixels * _BYTES_PIXEL * _DECODED_FRAMES,
        rows=streams * (_ROW_COPIES * groups + _SUMMARY * frames),
    )


def check_memory(need: MemoryEstimate, actors: int, on_gpu: bool) -> None:
    """Refuse a run that does not fit into this machine's RAM.

    Args:
        need: Estimate for one actor.
        actors: Number of actors on this machine.
        on_gpu: Whether encoding takes GPU memory, which is not checked, instead of RAM.

    Raises:
        MemoryRefused: The run does not fit.
    """
    each, there = _in_ram(need, on_gpu), machine_memory()
    if each * actors > there:
        raise MemoryRefused(
            f"{actors} actors need {each * actors / _MIB:.0f} MiB of memory, and "
            f"{there / _MIB:.0f} MiB are free (one actor: {need}). Lower cluster.workers, "
            "cluster.streams, decode.window or decode.queue_size; if 'decoder' is the largest "
            "part, lower limits.max_pixels to refuse the largest pictures"
        )


@dataclass
class RunMemory:
    """The RAM of a run on this machine.

    Attributes:
        model: Config of the student.
        settings: Settings of the workers.
    """

    model: ModelConfig
    settings: TrackSettings
    _granted: int | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether encoding takes GPU memory, which is not checked, instead of RAM."""
        return self.settings.device != "cpu"

    def estimate(self, videos: Iterable[VideoInfo], streams: int) -> MemoryEstimate:
        """Estimate for one actor that tracks some of these videos, `streams` at once."""
        s = self.settings
        in_openvino = takes_openvino(s.runtime, s.device)
        return estimate(self.model, s.window, s.queue_size, videos, s.limits, streams, in_openvino)

    def fitting_streams(self, videos: Sequence[VideoInfo], most: int, actors: int) -> int:
        """As many videos at once as fit into this machine's RAM; see the function."""
        return fitting_streams(lambda n: self.estimate(videos, n), most, actors, self.on_gpu)

    def fitting_actors(self, need: MemoryEstimate, pool: Pool) -> int:
        """Number of actors of a pool that fit into this machine's RAM.

        Free RAM is looked at by the first call. Later chunks of an archive get the same, because
        actors of the chunk before may not have left theirs yet; they are not refused.

        Args:
            need: Estimate for one actor.
            pool: Sizes that are wanted.

        Raises:
            MemoryRefused: The least size does not fit.
        """
        each = _in_ram(need, self.on_gpu)
        if self._granted is not None:
            return max(1, min(pool.start, self._granted // each))
        actors = max(pool.least, fitting_actors(need, pool.start, self.on_gpu))
        check_memory(need, actors, self.on_gpu)
        self._granted = actors * each
        return actors


def fitting_actors(need: MemoryEstimate, most: int, on_gpu: bool) -> int:
    """As many actors as fit into this machine's RAM, at least 1 and at most `most`.

    Args:
        need: Estimate for one actor.
        most: Actors that there are cores or GPUs for, at least 1.
        on_gpu: As of `check_memory`.
    """
    return max(1, min(most, machine_memory() // _in_ram(need, on_gpu)))


def fitting_streams(
    estimated: Callable[[int], MemoryEstimate], most: int, actors: int, on_gpu: bool
) -> int:
    """As many videos at once as fit into this machine's RAM, at least 1 and at most `most`.

    Args:
        estimated: Estimate for one actor with a number of videos.
        most: Videos that an actor tracks best.
        actors: Number of actors on this machine.
        on_gpu: As of `check_memory`.
    """
    there = machine_memory() // actors
    fitting = (n for n in range(most, 1, -1) if _in_ram(estimated(n), on_gpu) <= there)
    return next(fitting, 1)


def _in_ram(need: MemoryEstimate, on_gpu: bool) -> int:
    return need.total - (need.encode if on_gpu else 0)


def machine_memory() -> int:
    """Bytes of free RAM, at most the limit of the container."""
    free = int(psutil.virtual_memory().available)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup") / name
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text))
    return free
