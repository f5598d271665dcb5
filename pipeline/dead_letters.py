"""Dead letters: inputs that cannot be processed, each with its reason; never silently skipped."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path

from pipeline import storage
from pipeline.schema import DEAD_LETTERS, rows_table, table_uri, to_parquet_bytes


def write_dead_letter(
    output: str,
    video_id: str,
    uri: str,
    relative_path: str,
    stage: str,
    kind: str,
    message: str,
) -> bool:
    """Record an input that cannot be processed; False if it is recorded already."""
    row = {
        "video_id": video_id,
        "uri": uri,
        "relative_path": relative_path,
        "stage": stage,
        "kind": kind,
        "message": message,
        "attempts": 1,
        "time": datetime.now(UTC),
    }
    data = to_parquet_bytes(rows_table([row], DEAD_LETTERS))
    return storage.create_if_absent(table_uri(output, "dead_letters", video_id), data)


def describe_error(error: BaseException) -> str:
    """Type, message and the last places of an exception, on one line."""
    last = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in last]
    return f"{type(error).__name__}: {error} (at {' > '.join(places)})"
