"""Make a feature cache, on Ray Data or in this process; parts that exist are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.net.letterbox import Letterbox
from model.teach.config import TeacherConfig
from model.teach.teacher import TeacherFeatures
from model.teach.teacher_statistics import measure_statistics
from pipeline.storage.files import create_if_absent, open_binary
from pipeline.teachers.load import load_teacher, teacher_id
from pipeline.training.archive_frames import ArchiveFrames
from pipeline.training.config import CacheConfig
from pipeline.training.feature_cache import (
    CacheIdentity,
    FeatureCache,
    part_bytes,
    part_uri,
    parts_done,
    read_identity,
    read_statistics,
    row_features,
    write_identity,
    write_statistics,
)
from pipeline.video.canvas import letterboxed

_PART = 32  # frames in a part, half a minute of work on a CPU; a killed worker loses no more
_BATCH = 8  # frames the teacher sees at once


def wanted_identity(
    frames: ArchiveFrames, teacher: TeacherConfig, settings: CacheConfig
) -> dict[str, Any]:
    """Settings that a cache must have to be used for these frames and this teacher."""
    config = frames.config
    return {
        "teacher": teacher_id(teacher),
        "dtype": settings.dtype,
        "height": config.height,
        "width": config.width,
        "pool": config.pool,
        "seed": frames.seed,
        "dense_share": settings.dense_share,
    }


def cache_features(
    frames: ArchiveFrames,
    teacher: TeacherConfig,
    settings: CacheConfig,
    workers: int,
    warn: Callable[[str], None],
    advance: Callable[[int], None] = lambda count: None,
) -> FeatureCache:
    """Make the missing parts of a cache, then open it.

    Args:
        frames: frames of the cache; `frames.pool` limits their number.
        teacher: settings of the teacher.
        settings: settings of the cache.
        workers: number of Ray Data actors on the connected cluster; 0 uses this process.
        warn: called with a line for each view that cannot be read.
        advance: called with the number of further frames that are done.

    Raises:
        ValueError: the number of frames has no limit.
        FeatureCacheError: the cache was made with other settings.
        TeacherError: the teacher cannot be loaded.
        FramesError: no frame of the archive can be read.
        StorageError: the cache cannot be read or written.
    """
    if not frames.config.pool:
        raise ValueError("a feature cache needs a limited number of frames; give frames.pool=N")
    wanted, root = wanted_identity(frames, teacher, settings), settings.path
    identity = read_identity(root)
    if identity is None:
        info = load_teacher(teacher).info
        identity = CacheIdentity(**{**wanted, "teacher": info})
        write_identity(root, identity)
    identity.check(wanted, root)
    if read_statistics(root) is None:
        done = parts_done(root)
        missing = [p for p in range(-(-identity.pool // _PART)) if p not in done]
        advance(min(identity.pool, len(done) * _PART))
        for count, problems in _made(frames, teacher, identity, root, missing, workers):
            advance(count)
            for line in problems:
                warn(line)
        found = measure_statistics(identity.teacher, _stored(identity, root))
        write_statistics(root, found)
    return FeatureCache(root, wanted)


class PartMaker:
    """The teacher in a worker. Each call makes one part of the cache."""

    def __init__(
        self,
        frames: ArchiveFrames,
        teacher: TeacherConfig,
        identity: CacheIdentity,
        root: str,
        device: str,
    ) -> None:
        self.frames, self.identity, self.root, self.device = frames, identity, root, device
        self.teacher = load_teacher(teacher, device)

    def make(self, part: int) -> tuple[int, list[str]]:
        """Make and write a part; return its number of frames, and a line per unreadable view."""
        indices = range(part * _PART, min(self.identity.pool, (part + 1) * _PART))
        keys, images, sizes, problems = [], [], [], []
        for index in indices:
            view, pixels, unreadable = self.frames.read(index)
            image, _ = letterboxed(pixels, *self.frames.clean_canvas)
            height, width = pixels.shape[:2]
            box = Letterbox(height, width, self.identity.height, self.identity.width)
            keys.append(view.key)
            images.append(image)
            sizes.append(torch.tensor([box.scaled_height, box.scaled_width]))
            problems += unreadable
        valid, found = torch.stack(sizes), []
        for first in range(0, len(images), _BATCH):
            chosen = slice(first, first + _BATCH)
            batch = torch.stack(images[chosen]).to(self.device)
            found.append(self.teacher(batch, valid[chosen].to(self.device)))
        features = TeacherFeatures(
            torch.cat([f.dense for f in found]),
            torch.cat([f.pooled for f in found]),
            torch.cat([f.valid for f in found]),
        )
        seed, share = self.identity.seed, self.identity.dense_share
        # Dense features of the first frame are always stored, because statistics need some.
        keep = [i == 0 or np.random.default_rng([seed, i, 4]).random() < share for i in indices]
        data = part_bytes(self.identity, keys, valid, features, keep)
        # Two workers may make the same part; only the first one writes it.
        create_if_absent(part_uri(self.root, part), data)
        return len(keys), problems

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Make the part of a batch of one row, as Ray Data calls it."""
        count, problems = self.make(batch["part"][0].as_py())
        return {"count": np.array([count]), "problems": np.array(["\n".join(problems)])}


def _made(
    frames: ArchiveFrames,
    teacher: TeacherConfig,
    identity: CacheIdentity,
    root: str,
    parts: list[int],
    workers: int,
) -> Iterator[tuple[int, list[str]]]:
    if not parts:
        return
    if workers == 0:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        maker = PartMaker(frames, teacher, identity, root, device)
        yield from map(maker.make, parts)
        return
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # seeking far into long videos is slow
    context.max_consecutive_actor_init_deaths = 3
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    gpu = ray.cluster_resources().get("GPU", 0) >= workers
    rows = ray.data.from_items([{"part": p} for p in parts], override_num_blocks=len(parts))
    made = rows.map_batches(
        PartMaker,
        fn_constructor_args=(frames, teacher, identity, root, "cuda" if gpu else "cpu"),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(workers, len(parts))),
        num_gpus=1 if gpu else None,
        num_cpus=None if gpu else 1,
    )
    for row in made.iter_rows():
        yield int(row["count"]), row["problems"].splitlines()


def _stored(identity: CacheIdentity, root: str) -> Iterator[TeacherFeatures]:
    """Yield the features of a cache, one frame at a time, of frames with dense features."""
    for part in sorted(parts_done(root)):
        with open_binary(part_uri(root, part)) as source:
            file = pq.ParquetFile(source)
            for number in range(file.num_row_groups):
                row = file.read_row_group(number).to_pylist()[0]
                if row["dense"] is not None:
                    dense, pooled, valid = (x[None] for x in row_features(identity, row))
                    yield TeacherFeatures(dense, pooled, valid)
