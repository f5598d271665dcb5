"""All tables of a tracking run: field names, types and paths.

Fields may be added; their meaning never changes. Metadata of each file has ``schema_version``.
Boxes are pixels of the displayed frame, ``x, y`` the top-left corner, ``w, h`` positive;
``frame_index`` counts the frames of the file from 0; times are seconds from the video's timestamps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.secrets import mask_secrets

SCHEMA_VERSION = 2
TABLES = ("tracks", "frames", "videos", "seams", "dead_letters", "manifest")


def _schema(fields: Iterable[tuple[str, pa.DataType]], required: Iterable[str]) -> pa.Schema:
    names = set(required)
    return pa.schema(
        [pa.field(name, kind, nullable=name not in names) for name, kind in fields],
        metadata={"schema_version": str(SCHEMA_VERSION)},
    )


_TRACK_FIELDS = [
    ("video_id", pa.string()),
    ("frame_index", pa.int64()),
    ("time_s", pa.float64()),
    ("track_id", pa.int64()),
    ("x", pa.float32()),
    ("y", pa.float32()),
    ("w", pa.float32()),
    ("h", pa.float32()),
    ("score", pa.float32()),
    ("class_name", pa.string()),
    ("semantic_weight", pa.float32()),
]
TRACKS = _schema(_TRACK_FIELDS, [name for name, _ in _TRACK_FIELDS])

_FRAME_FIELDS = [
    ("video_id", pa.string()),
    ("frame_index", pa.int64()),
    ("time_s", pa.float64()),
    ("quality", pa.float32()),
    ("sharpness", pa.float32()),
    ("noise", pa.float32()),
    ("blockiness", pa.float32()),
    ("luma", pa.float32()),
    ("contrast", pa.float32()),
    ("semantic_weight", pa.float32()),
    ("num_tracks", pa.int32()),
    # False for a still frame, which repeats the values and boxes of the last encoded one.
    ("encoded", pa.bool_()),
    ("cut", pa.bool_()),  # the first frame of a new shot, at which all tracks end
]
FRAMES = _schema(_FRAME_FIELDS, [name for name, _ in _FRAME_FIELDS])

# Fields of a video's header; null where the header does not have one or cannot be read.
_PROBE_FIELDS = [
    ("video_id", pa.string()),
    ("uri", pa.string()),
    ("relative_path", pa.string()),
    ("size_bytes", pa.int64()),
    ("container", pa.string()),
    ("codec", pa.string()),
    ("pixel_format", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("rotation", pa.int32()),
    ("fps", pa.float64()),
    ("time_base", pa.string()),
    ("variable_rate", pa.bool_()),
    ("frames_expected", pa.int64()),
    ("duration_s", pa.float64()),
]
_FILE_FIELDS = ("video_id", "uri", "relative_path", "size_bytes")
_MANIFEST_FIELDS = [
    ("error", pa.string()),  # why it cannot be read
    # Hash of path, size, and etag or time of change: a file with this key is not read again.
    ("file_key", pa.binary(16)),
]
MANIFEST = _schema([*_PROBE_FIELDS, *_MANIFEST_FIELDS], _FILE_FIELDS)

_VIDEO_FIELDS = [
    ("status", pa.string()),  # "ok"; "partial": decoding stopped before the end
    ("error", pa.string()),  # the reason why it stopped
    ("frames_decoded", pa.int64()),  # frames read, those that sample.fps leaves out among them
    ("frames_tracked", pa.int64()),  # those with a row in `frames`
    ("frames_encoded", pa.int64()),  # those of them that are not still
    ("video_s", pa.float64()),  # seconds of footage in the frames decoded
    ("num_tracks", pa.int64()),
    ("track_length_mean", pa.float64()),  # frames in which a track has a box
    ("track_length_median", pa.float64()),
    ("track_length_max", pa.int64()),
    ("quality_mean", pa.float64()),
    ("quality_p05", pa.float64()),
    ("quality_p50", pa.float64()),
    ("quality_p95", pa.float64()),
    ("low_quality_share", pa.float64()),
    ("decode_wait_s", pa.float64()),  # how long the model waited for frames
    ("decode_busy_s", pa.float64()),  # how long the decode thread worked, in parallel to the model
    ("encode_s", pa.float64()),
    ("step_s", pa.float64()),
    ("write_s", pa.float64()),  # for tracks and frames, without this row
    ("frames_per_second", pa.float64()),
    ("model_sha256", pa.string()),
    ("config_hash", pa.string()),
    ("code_version", pa.string()),
    ("split_mode", pa.string()),  # "video", "resume" or "parallel": how the video was tracked
    ("segments", pa.int32()),  # windows tracked apart; 1 if it was one pass
    ("seams", pa.int32()),  # between windows
    ("seam_matches", pa.int32()),  # tracks that go on across a seam
    ("seam_conflicts", pa.int32()),  # pairs that a better pair excluded
    ("seam_unmatched", pa.int32()),  # tracks at a seam that go on alone
    ("rejoined", pa.int32()),  # tracks that got the id of an earlier one, see reid.max_gap_s
    # Of the first frame of each new shot. Parquet has "element" as the name in a list.
    ("cut_times_s", pa.list_(pa.field("element", pa.float64()))),
    ("repairs", pa.string()),  # what was done about faults of the file or of saved states
]
_VIDEO_NULLABLE = {
    "error",
    "track_length_mean",
    "track_length_median",
    "track_length_max",
    "repairs",
}
VIDEOS = _schema(
    [*_PROBE_FIELDS, *_VIDEO_FIELDS],
    [*_FILE_FIELDS, *(name for name, _ in _VIDEO_FIELDS if name not in _VIDEO_NULLABLE)],
)

# How windows of a video were joined: a row for each track at a seam.
_SEAM_FIELDS = [
    ("video_id", pa.string()),
    ("seam", pa.int32()),  # number of the seam, from 0
    ("time_s", pa.float64()),  # rows before it are of the left window, the others of the right one
    ("frames_shared", pa.int32()),  # frames that both windows tracked
    # "matched"; "conflict": a better pair has one of the two; "left_alone", "right_alone"
    ("outcome", pa.string()),
    ("left_track_id", pa.int64()),  # ids in the finished tables; null where there is none
    ("right_track_id", pa.int64()),
    ("overlap", pa.float32()),  # mean IoU over the shared frames; null without shared frames
    ("similarity", pa.float32()),  # of appearance, in [-1, 1]; null where one was never clear
    ("gap_s", pa.float64()),  # time between the two; 0 if they share frames
]
_SEAM_NULLABLE = {"left_track_id", "right_track_id", "overlap", "similarity"}
SEAMS = _schema(_SEAM_FIELDS, [name for name, _ in _SEAM_FIELDS if name not in _SEAM_NULLABLE])

DEAD_LETTERS = _schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("relative_path", pa.string()),
        ("stage", pa.string()),  # "probe" or "track"
        # "input": the file is bad; "poison": tracking it failed; "deadline": it took too long
        ("kind", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("time", pa.timestamp("us", tz="UTC")),
    ],
    ["video_id", "uri", "relative_path", "stage", "kind", "message", "attempts", "time"],
)


def to_parquet_bytes(table: pa.Table) -> bytes:
    """A small table as one Parquet file in memory; `TableSpool` is for large ones."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def rows_table(rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    """Rows as a table. Missing fields are null; text is made storable.

    Raises:
        ValueError: A row has a field that is not in the schema.
    """
    clean = []
    for row in rows:
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"fields {sorted(unknown)} are not in the schema {schema.names}")
        clean.append({k: storable(v) if isinstance(v, str) else v for k, v in row.items()})
    return pa.Table.from_pylist(clean, schema=schema)


def storable(text: str) -> str:
    """Text that is valid UTF-8 and has no secrets.

    File names on Linux may have bytes that are not UTF-8 (in Python lone surrogates): they become
    ``\\xNN``. Passwords and tokens in URLs become ``***``.
    """
    return mask_secrets(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def table_uri(output: str, table: str, name: str) -> str:
    """Path or URL of one file of a table: ``<output>/<table>/<name>.parquet``.

    Raises:
        ValueError: There is no table of that name.
    """
    if table not in TABLES:
        raise ValueError(f"no table {table!r}; there are {', '.join(TABLES)}")
    return f"{output.rstrip('/')}/{table}/{name}.parquet"
