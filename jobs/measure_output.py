"""What every measure leaves behind: its rows, as Parquet and as JSON, and where they come from."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.benchmark.measure import Row
from pipeline.storage.files import write_atomic
from pipeline.storage.schema import to_parquet_bytes


def write_rows(output: str, what: str, rows: Sequence[Row], record: dict[str, Any]) -> str:
    """Write `<what>.parquet` and `<what>.json` below `output`; returns the URL of the latter.

    Raises:
        StorageError: the output cannot be written.
    """
    target = f"{output.rstrip('/')}/{what}"
    stamped = pa.Table.from_pylist(list(rows)).replace_schema_metadata(
        {"provenance": json.dumps(record)}
    )
    write_atomic(f"{target}.parquet", to_parquet_bytes(stamped))
    text = json.dumps({"provenance": record, "rows": rows}, indent=2)
    write_atomic(f"{target}.json", (text + "\n").encode())
    return f"{target}.json"
