"""The tables' schemas: versioned, strict about fields, tolerant of any text."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.storage import schema
from pipeline.storage.schema import rows_table, table_uri, to_parquet_bytes
from pipeline.storage.secrets import mask_secrets


@pytest.mark.parametrize(
    "name", ["TRACKS", "FRAMES", "VIDEOS", "TRACK_SUMMARY", "DEAD_LETTERS", "MANIFEST"]
)
def test_version_is_in_the_file(name):
    table = rows_table([], getattr(schema, name))
    read = pq.read_table(pa.BufferReader(to_parquet_bytes(table)))
    assert read.schema.metadata[b"schema_version"] == str(schema.SCHEMA_VERSION).encode()
    assert read.schema.names == getattr(schema, name).names


TRACK_FIELDS = (
    "video_id, frame_index, time_s, track_id, x, y, w, h, score, class_name, semantic_weight"
)
FRAME_FIELDS = (
    "video_id, frame_index, time_s, quality, sharpness, noise, blockiness, luma, contrast, "
    "semantic_weight, num_tracks, encoded, cut"
)


def test_contract_fields_are_there():
    assert ", ".join(schema.TRACKS.names) == TRACK_FIELDS
    assert ", ".join(schema.FRAMES.names) == FRAME_FIELDS


def row(**changes):
    return {
        "video_id": "a-1", "uri": "/a.mp4", "relative_path": "a.mp4", "stage": "probe",
        "kind": "input", "message": "empty", "attempts": 1, "time": datetime.now(UTC),
    } | changes  # fmt: skip


def test_unknown_field_is_an_error():
    with pytest.raises(ValueError, match="colour"):
        rows_table([row(colour="red")], schema.DEAD_LETTERS)


def test_any_text_can_be_stored_and_no_secret_is():
    changes = {"relative_path": "a\udcff\n'\"é.mp4", "uri": "ftp://me:secret@host/a.mp4"}
    table = rows_table([row(**changes)], schema.DEAD_LETTERS)
    read = pq.read_table(pa.BufferReader(to_parquet_bytes(table))).to_pylist()[0]
    assert read["relative_path"] == "a\\xff\n'\"é.mp4"
    assert read["uri"] == "ftp://me:***@host/a.mp4"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://key:se/cr+et/@host/a.mp4", "s3://key:***@host/a.mp4"),
        ("s3://key:/secret@host/a.mp4", "s3://key:***@host/a.mp4"),
        ("open redis://:a/b@host:1/x@y.mp4 failed", "open redis://:***@host:1/x@y.mp4 failed"),
        ("ftp://me:secret@host/a@b.mp4", "ftp://me:***@host/a@b.mp4"),
        ("http://host:9000/bucket/me@home.mp4", "http://host:9000/bucket/me@home.mp4"),
        ("https://host/me:you@home.mp4", "https://host/me:you@home.mp4"),
    ],
)
def test_a_password_may_hold_a_slash_and_a_port_is_none(text, masked):
    assert mask_secrets(text) == masked


def test_table_uri():
    assert table_uri("s3://b/out/", "tracks", "a-1") == "s3://b/out/tracks/a-1.parquet"
    with pytest.raises(ValueError, match="no table 'track'"):
        table_uri("out", "track", "a-1")
