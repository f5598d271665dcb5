"""Dead letters: records of inputs that cannot be processed, each with the reason."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.storage import files as storage
from pipeline.storage.schema import DEAD_LETTERS, rows_table, table_uri, to_parquet_bytes


def write_dead_letter(
    output: str,
    *,
    video_id: str,
    uri: str,
    relative_path: str,
    stage: str,
    kind: str,
    message: str,
    attempts: int = 1,
    conditional: bool = True,
) -> bool:
    """Record an input that cannot be processed; returns False if it is recorded already.

    Args:
        output: the output folder.
        video_id, uri, relative_path: identify the input.
        stage: stage that failed, "probe" or "track".
        kind: kind of failure, "input", "poison" or "deadline".
        message: the reason.
        attempts: number of attempts so far.
        conditional: whether the output can refuse to create a file that exists.
    """
    row = {
        "video_id": video_id,
        "uri": uri,
        "relative_path": relative_path,
        "stage": stage,
        "kind": kind,
        "message": message,
        "attempts": attempts,
        "time": datetime.now(UTC),
    }
    data = to_parquet_bytes(rows_table([row], DEAD_LETTERS))
    uri = table_uri(output, "dead_letters", video_id)
    return storage.create_if_absent(uri, data, conditional)


def settle(output: str, video_id: str) -> None:
    """Remove the dead letter of a video that is done, because its rows count.

    Two runs on one output may disagree about a video, for example if only one of them met its
    deadline. Each run calls this after it has published, so the later one finds both.
    """
    letter = table_uri(output, "dead_letters", video_id)
    if storage.exists(letter) and storage.exists(table_uri(output, "videos", video_id)):
        storage.remove(letter)
