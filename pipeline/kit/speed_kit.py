"""Makes a speed kit: the student, some frames of a video, the video, and the code."""

import io
from itertools import islice
from pathlib import Path

import numpy as np

from model.track.checkpoint import read_metadata
from pipeline.kit.folder import START, Kit, KitError, Stage, write_kit
from pipeline.kit.gpu_speed import FRAMES, VIDEO
from pipeline.kit.speed_job import SpeedKitConfig
from pipeline.storage.files import list_videos, read_bytes
from pipeline.video.decode import FrameStream
from pipeline.video.probe import probe


def make_speed_kit(config: SpeedKitConfig) -> Kit:
    """Write the folder of a kit.

    Raises:
        KitError: `video` is not one file, the folder holds other files, or a part is too small.
        CheckpointError: the weights cannot be used.
        ProbeError, DecodeError: the video cannot be read.
        StorageError: a file cannot be read or written.
    """
    found = list(list_videos(config.video))
    if len(found) != 1:
        raise KitError(f"video={config.video}: {len(found)} videos found; give one file")
    info = probe(found[0])
    canvas = read_metadata(config.weights).model.canvas_for(info.height, info.width)
    with FrameStream(info, *canvas) as stream:
        frames = list(islice(stream, config.frames))
        box = stream.letterbox
    held = io.BytesIO()
    np.savez_compressed(
        held,
        images=np.stack([frame.image for frame in frames]),
        patches=np.stack([frame.patches for frame in frames]),
        valid=np.array([[box.scaled_height, box.scaled_width]] * len(frames)),
    )
    files: dict[str, Path | bytes] = {
        START: Path(config.weights),
        FRAMES: held.getvalue(),
        VIDEO: read_bytes(info.uri),
    }
    settings = {"window": config.window, "rows": list(config.rows), "seconds": config.seconds}
    limit = int(config.part_mb * 1e6)
    stage = Stage("speed", 1.0)
    return write_kit(
        config.output, [stage], {stage.name: settings}, files, config.device, limit, "gpu_run"
    )
