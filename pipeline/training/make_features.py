"""Make a cache of teacher features, on Ray Data or in this process; takes up where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.teach.config import TeacherConfig
from model.teach.teacher import TeacherFeatures, load_teacher, teacher_id
from model.teach.teacher_statistics import measure_statistics
from pipeline.storage.files import create_if_absent, open_binary
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

_PART = 32  # frames: half a minute of a CPU's work is all that a killed worker loses
_BATCH = 8


def wanted_identity(
    frames: ArchiveFrames, teacher: TeacherConfig, settings: CacheConfig
) -> dict[str, Any]:
    """What a cache has to be of to serve these frames and this teacher."""
    config = frames.config
    return {
        "teacher": teacher_id(teacher.model, teacher.pretrained),
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
    """Make what is missing of a cache, then open it.

    Args:
        frames: with a pool.
        teacher: which teacher.
        settings: where, and how much.
        workers: 0 works in this process, else actors of Ray Data on the connected cluster.
        warn: told what could not be read.
        advance: told of frames done.

    Raises:
        ValueError: the frames have no pool.
        FeatureCacheError: the cache is of something else.
        TeacherError, FramesError, StorageError: as their makers say.
    """
    if not frames.config.pool:
        raise ValueError("a feature cache needs a finite number of frames; give frames.pool=N")
    wanted, root = wanted_identity(frames, teacher, settings), settings.path
    identity = read_identity(root)
    if identity is None:
        info = load_teacher(teacher.model, teacher.pretrained).info
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
    """The teacher in a worker: makes one part a call and answers with what became of it."""

    def __init__(
        self,
        frames: ArchiveFrames,
        teacher: TeacherConfig,
        identity: CacheIdentity,
        root: str,
        device: str,
    ) -> None:
        self.frames, self.identity, self.root, self.device = frames, identity, root, device
        self.teacher = load_teacher(teacher.model, teacher.pretrained, device)

    def make(self, part: int) -> tuple[int, list[str]]:
        """Make and write a part: frames in it, and what could not be read."""
        indices = range(part * _PART, min(self.identity.pool, (part + 1) * _PART))
        keys, images, sizes, problems = [], [], [], []
        for index in indices:
            view, pixels, said = self.frames.look(index)
            image, size = letterboxed(pixels, self.identity.height, self.identity.width)
            keys.append(view.key)
            images.append(image)
            sizes.append(torch.tensor(size))
            problems += said
        valid, found = torch.stack(sizes), []
        for first in range(0, len(images), _BATCH):
            some = slice(first, first + _BATCH)
            seen = torch.stack(images[some]).to(self.device)
            found.append(self.teacher(seen, valid[some].to(self.device)))
        names = ("dense", "pooled", "valid")
        features = TeacherFeatures(*(torch.cat([getattr(f, n) for f in found]) for n in names))
        seed, share = self.identity.seed, self.identity.dense_share
        # The first is kept always: statistics need one.
        keep = [i == 0 or np.random.default_rng([seed, i, 4]).random() < share for i in indices]
        data = part_bytes(self.identity, keys, valid, features, keep)
        # Of two workers that make the same part, one writes it.
        create_if_absent(part_uri(self.root, part), data)
        return len(keys), problems

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """One part, as Ray Data hands it over."""
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
    context.execution_no_progress_timeout_s = -1  # a part of frames far into long videos
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
    """The frames of a cache whose dense features were kept, one at a time."""
    for part in sorted(parts_done(root)):
        with open_binary(part_uri(root, part)) as source:
            file = pq.ParquetFile(source)
            for number in range(file.num_row_groups):
                row = file.read_row_group(number).to_pylist()[0]
                if row["dense"] is not None:
                    yield TeacherFeatures(*(x[None] for x in row_features(identity, row)))
