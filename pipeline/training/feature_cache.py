"""Teacher features on disk: Parquet parts and what they belong to.

- `CACHE/cache.json`: what the cache is of; written first.
- `CACHE/features/part-00000.parquet` and on: one row a frame, one row group a row.
- `CACHE/statistics.json`: what normalises the features; written last: the cache is whole.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from model.net.letterbox import valid_positions
from model.teach.teacher import STRIDE, TeacherFeatures, TeacherInfo
from model.teach.teacher_statistics import TeacherStatistics
from pipeline.storage.files import exists, list_stems, open_binary, read_bytes, write_atomic
from pipeline.storage.schema import SCHEMA_VERSION

FEATURES = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("time_us", pa.int64(), nullable=False),  # the frame shown then
        pa.field("crop", pa.string(), nullable=False),  # of the frame: WIDTHxHEIGHT+X+Y, - flipped
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("valid_height", pa.int32(), nullable=False),  # pixels of the crop on the canvas
        pa.field("valid_width", pa.int32(), nullable=False),
        pa.field("pooled", pa.binary(), nullable=False),  # (Cp,)
        pa.field("dense", pa.binary()),  # (C, h, w); null where only pooled is kept
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
_KEYS = ["video_id", "time_us", "crop"]
_OPEN_PARTS = 64  # a process may have 256 open files on macOS, 1,024 on Linux


class FeatureCacheError(ValueError):
    """A cache that belongs to something else, or is not whole; the message says which."""


class FrameKey(NamedTuple):
    """One view of one frame."""

    video_id: str
    time_us: int
    crop: str


@dataclass(frozen=True, slots=True)
class CacheIdentity:
    """What a cache is of; another one is refused.

    Attributes:
        teacher: whose features these are.
        dtype: `float16` or `float32`, as they are stored.
        height, width: canvas in pixels.
        pool: frames and crops in all.
        seed: they were drawn with.
        dense_share: share of frames whose dense features are kept.
    """

    teacher: TeacherInfo
    dtype: str
    height: int
    width: int
    pool: int
    seed: int
    dense_share: float

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of dense features."""
        return self.height // STRIDE, self.width // STRIDE

    def check(self, wanted: dict[str, Any], root: str) -> None:
        """Refuse a cache whose values differ from those wanted, by name.

        Raises:
            FeatureCacheError: some do; names them.
        """
        mine = asdict(self) | {"teacher": self.teacher.id}
        wrong = [f"{k}: {mine[k]} there, {v} here" for k, v in wanted.items() if mine[k] != v]
        if wrong:
            raise FeatureCacheError(
                f"feature cache {root} is of something else ({', '.join(wrong)}); give another "
                "cache.path, or the settings it was made with"
            )


def part_uri(root: str, part: int) -> str:
    """Where a part lies."""
    return f"{root.rstrip('/')}/features/part-{part:05d}.parquet"


def parts_done(root: str) -> set[int]:
    """The parts that are there."""
    stems = list_stems(f"{root.rstrip('/')}/features")
    return {int(stem.removeprefix("part-")) for stem in stems if stem.startswith("part-")}


def read_identity(root: str) -> CacheIdentity | None:
    """What a cache is of; None if there is none."""
    uri = f"{root.rstrip('/')}/cache.json"
    if not exists(uri):
        return None
    block = json.loads(read_bytes(uri))
    teacher = block.pop("teacher")
    info = TeacherInfo(teacher["id"], tuple(teacher["levels"]), teacher["pooled_dim"])
    return CacheIdentity(teacher=info, **block)


def write_identity(root: str, identity: CacheIdentity) -> None:
    """Begin a cache."""
    text = json.dumps(asdict(identity), indent=2)
    write_atomic(f"{root.rstrip('/')}/cache.json", text.encode())


def read_statistics(root: str) -> TeacherStatistics | None:
    """What normalises the features; None while the cache is not whole."""
    uri = f"{root.rstrip('/')}/statistics.json"
    if not exists(uri):
        return None
    return TeacherStatistics(**{k: torch.tensor(v) for k, v in json.loads(read_bytes(uri)).items()})


def write_statistics(root: str, statistics: TeacherStatistics) -> None:
    """Finish a cache."""
    lists = {name: getattr(statistics, name).tolist() for name in statistics.__slots__}
    write_atomic(f"{root.rstrip('/')}/statistics.json", json.dumps(lists).encode())


def part_bytes(
    identity: CacheIdentity,
    keys: Iterable[FrameKey],
    valid: Tensor,
    features: TeacherFeatures,
    keep_dense: Iterable[bool],
) -> bytes:
    """One part as a Parquet file.

    Args:
        identity: of the cache.
        keys: of N frames.
        valid: (N, 2) height and width in pixels on the canvas.
        features: of the same frames.
        keep_dense: for each, whether its dense features are kept.

    Raises:
        FeatureCacheError: a value is too large for the dtype.
    """
    rows = []
    for i, (key, keep) in enumerate(zip(keys, keep_dense, strict=True)):
        pooled, dense = (
            x[i].cpu().numpy().astype(identity.dtype) for x in (features.pooled, features.dense)
        )
        if not np.isfinite(pooled).all() or not np.isfinite(dense).all():
            raise FeatureCacheError(
                f"features of {identity.teacher.id} do not fit into {identity.dtype}; "
                "give cache.dtype=float32"
            )
        rows.append(
            key._asdict()
            | {
                "teacher": identity.teacher.id,
                "dtype": identity.dtype,
                "valid_height": int(valid[i, 0]),
                "valid_width": int(valid[i, 1]),
                "pooled": pooled.tobytes(),
                "dense": dense.tobytes() if keep else None,
            }
        )
    sink = io.BytesIO()
    # One row group a row: a frame is read without its neighbours.
    pq.write_table(
        pa.Table.from_pylist(rows, schema=FEATURES), sink, row_group_size=1, compression="zstd"
    )
    return sink.getvalue()


class FeatureCache:
    """A whole cache, read frame by frame; may be handed to another process.

    Args:
        root: folder or URL.
        wanted: what it has to be of: fields of `CacheIdentity`, the teacher by its id.

    Raises:
        FeatureCacheError: there is none, it is not whole, or it is of something else.
    """

    def __init__(self, root: str, wanted: dict[str, Any]) -> None:
        identity, statistics = read_identity(root), read_statistics(root)
        if identity is None or statistics is None:
            raise FeatureCacheError(f"feature cache {root}: missing or not finished; make it first")
        identity.check(wanted, root)
        self.root, self.identity, self.statistics = root, identity, statistics
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._rows: dict[FrameKey, tuple[int, int]] = {}
        for part in sorted(parts_done(root)):
            columns = self._file(part).read(_KEYS).to_pydict()
            for row, key in enumerate(zip(*(columns[name] for name in _KEYS), strict=True)):
                self._rows[FrameKey(*key)] = (part, row)

    def __len__(self) -> int:
        """How many frames."""
        return len(self._rows)

    def frames(self) -> list[FrameKey]:
        """All frames, in the order of the parts."""
        return list(self._rows)

    def features(self, key: FrameKey) -> tuple[Tensor, Tensor, Tensor]:
        """Dense (C, h, w) and pooled (Cp,) features, float32, and where dense is valid (h, w).

        A frame whose dense features were not kept is valid nowhere.

        Raises:
            FeatureCacheError: the frame is not in the cache.
        """
        if key not in self._rows:
            raise FeatureCacheError(
                f"feature cache {self.root}: has no {key}; the archive has changed since it was "
                "made, so make it again in another folder"
            )
        part, number = self._rows[key]
        return row_features(self.identity, self._file(part).read_row_group(number).to_pylist()[0])

    def _file(self, part: int) -> pq.ParquetFile:
        """An open part; the one that was not asked for the longest is closed to make room."""
        if part in self._files:
            self._files.move_to_end(part)
            return self._files[part]
        if len(self._files) == _OPEN_PARTS:
            self._files.popitem(last=False)[1].close(force=True)
        self._files[part] = pq.ParquetFile(open_binary(part_uri(self.root, part)))
        return self._files[part]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}


def row_features(identity: CacheIdentity, row: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Dense and pooled features and validity, as `FeatureCache.features`, of a row."""
    shape = (identity.teacher.dense_dim, *identity.grid)
    pooled = np.frombuffer(row["pooled"], identity.dtype).astype(np.float32)
    if row["dense"] is None:
        nowhere = torch.zeros(identity.grid, dtype=torch.bool)
        return torch.zeros(shape), torch.from_numpy(pooled), nowhere
    dense = np.frombuffer(row["dense"], identity.dtype).astype(np.float32).reshape(shape)
    size = torch.tensor([[row["valid_height"], row["valid_width"]]])
    valid = valid_positions(size, identity.grid, STRIDE)[0]
    return torch.from_numpy(dense), torch.from_numpy(pooled), valid
