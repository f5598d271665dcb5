"""The teacher's features on disk, in Parquet files.

- `CACHE/cache.json`: teacher, frames and format of the cache; written first.
- `CACHE/features/part-00000.parquet` and so on: one row per frame, one row group per row.
- `CACHE/statistics.json`: means and scales that normalise the features. It is written last, so a
  cache with this file is complete.
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

from model.net.padding import valid_positions
from model.teach.teacher import STRIDE, TeacherFeatures, TeacherInfo
from model.teach.teacher_statistics import TeacherStatistics
from pipeline.storage.files import exists, list_stems, open_binary, read_bytes, write_atomic
from pipeline.storage.schema import SCHEMA_VERSION

FEATURES = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("time_us", pa.int64(), nullable=False),  # time of the frame
        pa.field(
            "crop", pa.string(), nullable=False
        ),  # WIDTHxHEIGHT+X+Y of the frame, then - if flipped
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field(
            "valid_height", pa.int32(), nullable=False
        ),  # size of the crop on the canvas, pixels
        pa.field("valid_width", pa.int32(), nullable=False),
        pa.field("pooled", pa.binary(), nullable=False),  # (Cp,)
        pa.field("dense", pa.binary()),  # (C, h, w); null if only pooled features are stored
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
_KEYS = ["video_id", "time_us", "crop"]
_OPEN_PARTS = 64  # usual limits of open files: 256 on macOS, 1,024 on Linux


class FeatureCacheError(ValueError):
    """The cache is incomplete, or was made with other settings; the message says which."""


class FrameKey(NamedTuple):
    """Key of one crop of one frame; see the columns of the same names."""

    video_id: str
    time_us: int
    crop: str


@dataclass(frozen=True, slots=True)
class CacheIdentity:
    """Settings that a cache was made with. A run with other settings cannot use it.

    Attributes:
        teacher: the teacher that made the features.
        dtype: number type of the stored features, `float16` or `float32`.
        height, width: size of the canvas in pixels.
        pool: number of crops in the cache.
        seed: seed of the crops.
        dense_share: share of frames whose dense features are stored.
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
        """Rows and columns of the map of dense features."""
        return self.height // STRIDE, self.width // STRIDE

    def check(self, wanted: dict[str, Any], root: str) -> None:
        """Check that the cache was made with the wanted settings.

        Args:
            wanted: values by name; the teacher by its id.
            root: folder or URL of the cache, for the message.

        Raises:
            FeatureCacheError: some settings differ; the message names them.
        """
        stored = asdict(self) | {"teacher": self.teacher.id}
        different = [
            f"{name}: {stored[name]} in the cache, {value} now"
            for name, value in wanted.items()
            if stored[name] != value
        ]
        if different:
            raise FeatureCacheError(
                f"feature cache {root} was made with other settings ({', '.join(different)}); "
                "give another cache.path, or the same settings"
            )


def part_uri(root: str, part: int) -> str:
    """Path or URL of a part."""
    return f"{root.rstrip('/')}/features/part-{part:05d}.parquet"


def parts_done(root: str) -> set[int]:
    """Numbers of the parts that exist."""
    stems = list_stems(f"{root.rstrip('/')}/features")
    return {int(stem.removeprefix("part-")) for stem in stems if stem.startswith("part-")}


def read_identity(root: str) -> CacheIdentity | None:
    """Read the settings a cache was made with; None if there is no cache."""
    uri = f"{root.rstrip('/')}/cache.json"
    if not exists(uri):
        return None
    block = json.loads(read_bytes(uri))
    return CacheIdentity(teacher=TeacherInfo.of(block.pop("teacher")), **block)


def write_identity(root: str, identity: CacheIdentity) -> None:
    """Write the settings of a new cache."""
    text = json.dumps(asdict(identity), indent=2)
    write_atomic(f"{root.rstrip('/')}/cache.json", text.encode())


def read_statistics(root: str) -> TeacherStatistics | None:
    """Read the statistics that normalise the features; None if there are none yet."""
    uri = f"{root.rstrip('/')}/statistics.json"
    if not exists(uri):
        return None
    return TeacherStatistics(**{k: torch.tensor(v) for k, v in json.loads(read_bytes(uri)).items()})


def write_statistics(root: str, statistics: TeacherStatistics) -> None:
    """Write the statistics, which mark a cache as complete."""
    lists = {name: getattr(statistics, name).tolist() for name in statistics.__slots__}
    write_atomic(f"{root.rstrip('/')}/statistics.json", json.dumps(lists).encode())


def part_bytes(
    identity: CacheIdentity,
    keys: Iterable[FrameKey],
    valid: Tensor,
    features: TeacherFeatures,
    keep_dense: Iterable[bool],
) -> bytes:
    """Make one part, a Parquet file.

    Args:
        identity: settings of the cache.
        keys: keys of N frames.
        valid: (N, 2) height and width of each frame on the canvas, in pixels.
        features: features of the same frames.
        keep_dense: for each frame, whether its dense features are stored.

    Raises:
        FeatureCacheError: a value is too large for the number type of the cache.
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
    # One row per row group, so that one frame can be read alone.
    pq.write_table(
        pa.Table.from_pylist(rows, schema=FEATURES), sink, row_group_size=1, compression="zstd"
    )
    return sink.getvalue()


class FeatureCache:
    """A complete cache, read frame by frame. It can be pickled.

    Args:
        root: folder or URL of the cache.
        wanted: fields of `CacheIdentity` that the cache must have, the teacher by its id.

    Raises:
        FeatureCacheError: the cache is missing or incomplete, or was made with other settings.
    """

    def __init__(self, root: str, wanted: dict[str, Any]) -> None:
        identity, statistics = read_identity(root), read_statistics(root)
        if identity is None or statistics is None:
            raise FeatureCacheError(
                f"feature cache {root}: missing or not finished; run vsdmot distill with this "
                "cache.path"
            )
        identity.check(wanted, root)
        self.root, self.identity, self.statistics = root, identity, statistics
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._rows: dict[FrameKey, tuple[int, int]] = {}
        for part in sorted(parts_done(root)):
            columns = self._file(part).read(_KEYS).to_pydict()
            for row, key in enumerate(zip(*(columns[name] for name in _KEYS), strict=True)):
                self._rows[FrameKey(*key)] = (part, row)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._rows)

    def frames(self) -> list[FrameKey]:
        """All frames, in the order of the parts."""
        return list(self._rows)

    def features(self, key: FrameKey) -> tuple[Tensor, Tensor, Tensor]:
        """Read the features of one frame.

        Returns:
            dense (C, h, w) and pooled (Cp,) features, float32, and the valid positions (h, w) bool
            of the dense ones. If dense features are not stored, no position is valid.

        Raises:
            FeatureCacheError: the frame is not in the cache.
        """
        if key not in self._rows:
            raise FeatureCacheError(
                f"feature cache {self.root}: has no {key}; the archive has changed since the "
                "cache was made; give another cache.path"
            )
        part, number = self._rows[key]
        return row_features(self.identity, self._file(part).read_row_group(number).to_pylist()[0])

    def _file(self, part: int) -> pq.ParquetFile:
        """Open a part; the least recently used part is closed if too many are open."""
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
    """Dense and pooled features and valid positions of a row; see `FeatureCache.features`."""
    shape = (identity.teacher.dense_dim, *identity.grid)
    pooled = np.frombuffer(row["pooled"], identity.dtype).astype(np.float32)
    if row["dense"] is None:
        nowhere = torch.zeros(identity.grid, dtype=torch.bool)
        return torch.zeros(shape), torch.from_numpy(pooled), nowhere
    dense = np.frombuffer(row["dense"], identity.dtype).astype(np.float32).reshape(shape)
    size = torch.tensor([[row["valid_height"], row["valid_width"]]])
    valid = valid_positions(size, identity.grid, STRIDE)[0]
    return torch.from_numpy(dense), torch.from_numpy(pooled), valid
