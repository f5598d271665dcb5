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

SCHEMA_VERSION = 3

_Field = tuple[str, pa.DataType, str]  # name, type and meaning


def _schema(fields: Iterable[_Field], required: Iterable[str]) -> pa.Schema:
    names = set(required)
    return pa.schema(
        [pa.field(name, kind, nullable=name not in names) for name, kind, _ in fields],
        metadata={"schema_version": str(SCHEMA_VERSION)},
    )


_TRACK_FIELDS = [
    ("video_id", pa.string(), "id of the video, made of its path in the archive and its content"),
    ("frame_index", pa.int64(), "number of the frame in the file, from 0"),
    ("time_s", pa.float64(), "seconds from the start of the video, by the file's own timestamps"),
    ("track_id", pa.int64(), "id of the person within the video"),
    ("x", pa.float32(), "left edge of the box, in pixels of the frame as it is shown"),
    ("y", pa.float32(), "top edge of the box"),
    ("w", pa.float32(), "width of the box"),
    ("h", pa.float32(), "height of the box"),
    ("score", pa.float32(), "how sure the tracker is of the box, in [0, 1]"),
    ("class_name", pa.string(), "what it is: person, with the shipped weights"),
    (
        "semantic_weight",
        pa.float32(),
        "how much the frame relied on semantics rather than on pixels, in [0, 1]",
    ),
]
TRACKS = _schema(_TRACK_FIELDS, [name for name, *_ in _TRACK_FIELDS])

_FRAME_FIELDS = [
    ("video_id", pa.string(), "as in tracks"),
    ("frame_index", pa.int64(), "as in tracks"),
    ("time_s", pa.float64(), "as in tracks"),
    ("quality", pa.float32(), "measured quality of the picture, in [0, 1]; 1 is clean"),
    ("sharpness", pa.float32(), "gradients beyond those of the noise, for their contrast"),
    ("noise", pa.float32(), "noise of the sensor, from fine structure that is no edge"),
    (
        "blockiness",
        pa.float32(),
        "steps at the borders of the codec's blocks against those elsewhere, as log2",
    ),
    ("luma", pa.float32(), "mean brightness, in [0, 1]"),
    ("contrast", pa.float32(), "standard deviation of brightness"),
    ("semantic_weight", pa.float32(), "as in tracks"),
    ("num_tracks", pa.int32(), "boxes in this frame"),
    (
        "encoded",
        pa.bool_(),
        "false for a still frame, which repeats values and boxes of the last encoded one",
    ),
    ("cut", pa.bool_(), "the first frame of a new shot, at which all tracks end"),
]
FRAMES = _schema(_FRAME_FIELDS, [name for name, *_ in _FRAME_FIELDS])

# Fields of a video's header; null where the header does not have one or cannot be read.
_PROBE_FIELDS = [
    ("video_id", pa.string(), "id of the video, made of its path in the archive and its content"),
    ("uri", pa.string(), "where it was read; secrets masked"),
    ("relative_path", pa.string(), "path in the archive"),
    ("size_bytes", pa.int64(), "size of the file"),
    ("container", pa.string(), "as libav names it"),
    ("codec", pa.string(), "as libav names it"),
    ("pixel_format", pa.string(), "as libav names it"),
    ("width", pa.int32(), "pixels of the frame as it is shown"),
    ("height", pa.int32(), "pixels of the frame as it is shown"),
    ("rotation", pa.int32(), "degrees clockwise by which a player turns the stored picture"),
    ("fps", pa.float64(), "mean frames a second"),
    ("time_base", pa.string(), "seconds of one tick of the timestamps, as 1/12800"),
    ("variable_rate", pa.bool_(), "whether gaps between frames are unequal, by the header"),
    ("frames_expected", pa.int64(), "frames by the header"),
    ("duration_s", pa.float64(), "seconds by the header"),
]
_FILE_FIELDS = ("video_id", "uri", "relative_path", "size_bytes")
_MANIFEST_FIELDS = [
    ("error", pa.string(), "why it cannot be read"),
    (
        "file_key",
        pa.binary(16),
        "hash of path, size, and etag or time of change; a file with this key is not read again",
    ),
]
MANIFEST = _schema([*_PROBE_FIELDS, *_MANIFEST_FIELDS], _FILE_FIELDS)

_VIDEO_FIELDS = [
    ("status", pa.string(), "ok; partial: decoding stopped before the end"),
    ("error", pa.string(), "the reason why it stopped"),
    ("frames_decoded", pa.int64(), "frames read, those that sample.fps leaves out among them"),
    ("frames_tracked", pa.int64(), "those with a row in `frames`"),
    ("frames_encoded", pa.int64(), "those of them that are not still"),
    ("video_s", pa.float64(), "seconds of footage in the frames decoded"),
    ("num_tracks", pa.int64(), "number of tracks"),
    ("track_length_mean", pa.float64(), "frames in which a track has a box"),
    ("track_length_median", pa.float64(), "as track_length_mean"),
    ("track_length_max", pa.int64(), "as track_length_mean"),
    ("quality_mean", pa.float64(), "of the frames in `frames`"),
    ("quality_p05", pa.float64(), "5th percentile of quality"),
    ("quality_p50", pa.float64(), "median of quality"),
    ("quality_p95", pa.float64(), "95th percentile of quality"),
    ("low_quality_share", pa.float64(), "share of frames with a quality below low_quality_below"),
    ("decode_wait_s", pa.float64(), "how long the model waited for frames"),
    ("decode_busy_s", pa.float64(), "how long the decode thread worked, in parallel to the model"),
    ("encode_s", pa.float64(), "time of the model in encode: detections and quality"),
    ("step_s", pa.float64(), "time of the model in step: tracks"),
    ("write_s", pa.float64(), "for tracks and frames, without this row"),
    ("frames_per_second", pa.float64(), "frames decoded, for each second of work"),
    ("model_sha256", pa.string(), "hash of the weights"),
    ("config_hash", pa.string(), "hash of the settings that decide results"),
    ("code_version", pa.string(), "version of this project"),
    ("split_mode", pa.string(), "video, resume or parallel: how the video was tracked"),
    ("segments", pa.int32(), "windows tracked apart; 1 if it was one pass"),
    ("seams", pa.int32(), "seams between windows"),
    ("seam_matches", pa.int32(), "tracks that go on across a seam"),
    ("seam_conflicts", pa.int32(), "pairs that a better pair excluded"),
    ("seam_unmatched", pa.int32(), "tracks at a seam that go on alone"),
    ("rejoined", pa.int32(), "tracks that got the id of an earlier one, see reid.max_gap_s"),
    (
        "cut_times_s",
        pa.list_(pa.field("element", pa.float64())),  # Parquet's name for what is in a list
        "time_s of the first frame of each new shot",
    ),
    ("repairs", pa.string(), "what was done about faults of the file or of saved states"),
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
    [*_FILE_FIELDS, *(name for name, *_ in _VIDEO_FIELDS if name not in _VIDEO_NULLABLE)],
)

_SEAM_FIELDS = [
    ("video_id", pa.string(), "as in tracks"),
    ("seam", pa.int32(), "number of the seam, from 0"),
    ("time_s", pa.float64(), "rows before it are of the left window, others of the right one"),
    ("frames_shared", pa.int32(), "frames that both windows tracked"),
    (
        "outcome",
        pa.string(),
        "matched; conflict: a better pair has one of the two; left_alone; right_alone",
    ),
    ("left_track_id", pa.int64(), "its id in `tracks`; null where there is none"),
    ("right_track_id", pa.int64(), "as left_track_id"),
    ("overlap", pa.float32(), "mean IoU over the shared frames; null without shared frames"),
    ("similarity", pa.float32(), "of appearance, in [-1, 1]; null where one was never clear"),
    ("gap_s", pa.float64(), "time between the two; 0 if they share frames"),
]
_SEAM_NULLABLE = {"left_track_id", "right_track_id", "overlap", "similarity"}
SEAMS = _schema(_SEAM_FIELDS, [name for name, *_ in _SEAM_FIELDS if name not in _SEAM_NULLABLE])

_SUMMARY_FIELDS = [
    ("video_id", pa.string(), "as in tracks"),
    ("track_id", pa.int64(), "as in tracks"),
    ("class_name", pa.string(), "of the best box"),
    ("first_frame", pa.int64(), "frame_index of its first box"),
    ("last_frame", pa.int64(), "frame_index of its last box"),
    ("first_s", pa.float64(), "time_s of its first box"),
    ("last_s", pa.float64(), "time_s of its last box"),
    ("length_s", pa.float64(), "last_s - first_s"),
    ("boxes", pa.int64(), "rows in `tracks`"),
    ("path_px", pa.float32(), "way of the middle of the box, from each box to the next"),
    ("net_px", pa.float32(), "from the middle of the first box to that of the last"),
    ("height_mean", pa.float32(), "mean height of its boxes, in pixels"),
    ("score_mean", pa.float32(), "of its boxes"),
    ("score_min", pa.float32(), "of its boxes"),
    ("quality_mean", pa.float32(), "of the frames in which it has a box"),
    ("quality_min", pa.float32(), "of the frames in which it has a box"),
    ("edge_share", pa.float32(), "share of its boxes that touch an edge of the picture"),
    (
        "overlap_mean",
        pa.float32(),
        "mean over its boxes of the share that the box of one other track covers at most",
    ),
    (
        "gaps",
        pa.int32(),
        "times without a box between two of its boxes, each one or more frames of `frames`",
    ),
    (
        "gaps_s",
        pa.float64(),
        "of all gaps together, each from the box before it to the box behind it",
    ),
    ("gap_longest_s", pa.float64(), "0 without a gap"),
    ("seams", pa.int32(), "seams between its first and its last box"),
    ("rejoined", pa.bool_(), "whether a later track got its id, see reid.max_gap_s"),
    (
        "best_frame",
        pa.int64(),
        "frame_index of the box that shows it best: large, sure, whole, in a good picture",
    ),
    ("best_s", pa.float64(), "time_s of that box"),
    ("best_x", pa.float32(), "left edge of that box, in pixels"),
    ("best_y", pa.float32(), "top edge of that box"),
    ("best_w", pa.float32(), "width of that box"),
    ("best_h", pa.float32(), "height of that box"),
    (
        "trust",
        pa.float32(),
        "chance in [0, 1], calibrated, that the track is one real person with one identity; "
        "null where no model of trust comes with the weights",
    ),
]
TRACK_SUMMARY = _schema(
    _SUMMARY_FIELDS, [name for name, *_ in _SUMMARY_FIELDS if name not in ("trust",)]
)

_DEAD_FIELDS = [
    ("video_id", pa.string(), "as in videos"),
    ("uri", pa.string(), "as in videos"),
    ("relative_path", pa.string(), "as in videos"),
    ("stage", pa.string(), "probe or track"),
    (
        "kind",
        pa.string(),
        "input: the file is bad; poison: tracking it failed; deadline: it took too long",
    ),
    ("message", pa.string(), "the reason, and what to do where that is known"),
    ("attempts", pa.int32(), "attempts that failed"),
    ("time", pa.timestamp("us", tz="UTC"), "when it was given up"),
]
DEAD_LETTERS = _schema(_DEAD_FIELDS, [name for name, *_ in _DEAD_FIELDS])

SCHEMAS = {
    "tracks": TRACKS,
    "frames": FRAMES,
    "videos": VIDEOS,
    "seams": SEAMS,
    "track_summary": TRACK_SUMMARY,
    "dead_letters": DEAD_LETTERS,
    "manifest": MANIFEST,
}
"""Schema of each table."""
TABLES = tuple(SCHEMAS)

TABLE_MEANINGS = {
    "tracks": "A row for each person and frame.",
    "frames": "A row for each frame that was tracked.",
    "videos": "A row for each video that is done. With it, the rows of the other tables count.",
    "seams": "How windows of a long video were joined: a row for each track at a seam.",
    "track_summary": "A row for each track of a finished video, sorted by track_id.",
    "dead_letters": "A row for each file that could not be tracked, and the reason.",
    "manifest": "The header of every file. Null is what the header does not have.",
}
"""What a row of each table is."""

FIELD_MEANINGS = {
    table: {name: meaning for name, _, meaning in fields}
    for table, fields in {
        "tracks": _TRACK_FIELDS,
        "frames": _FRAME_FIELDS,
        "videos": [*_PROBE_FIELDS, *_VIDEO_FIELDS],
        "seams": _SEAM_FIELDS,
        "track_summary": _SUMMARY_FIELDS,
        "dead_letters": _DEAD_FIELDS,
        "manifest": [*_PROBE_FIELDS, *_MANIFEST_FIELDS],
    }.items()
}
"""What each field means, by table. The pages of the reference are made of it."""


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
