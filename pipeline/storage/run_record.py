"""``run.json``: the settings that made the results in a folder. Others are refused there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from model.settings import differences
from model.version import code_version
from pipeline.storage.files import create_if_absent, exists, read_bytes, write_atomic
from pipeline.storage.schema import SCHEMA_VERSION
from pipeline.storage.secrets import mask_secrets

Plain = bool | int | float | str | None


class RunRefused(ValueError):
    """The output folder holds results made with other settings."""


def config_hash(deciding: Mapping[str, Plain]) -> str:
    """Hash of the settings that decide the results, 16 hex digits."""
    text = json.dumps(dict(deciding), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def claim_output(
    output: str,
    job: str,
    deciding: Mapping[str, Plain],
    config: Mapping[str, Any],
    conditional: bool = True,
) -> dict[str, Any]:
    """Write ``run.json``, or compare with the existing one; returns the record.

    Args:
        output: The output folder.
        job: The job's name.
        deciding: Settings that change results, by dotted key; "weights" is the file's sha256.
            Others (workers, queues, where the archive is mounted) may differ from run to run.
        config: The whole resolved config; secrets in it are masked.
        conditional: Whether the output can refuse to create a file that exists.

    Raises:
        RunRefused: Results of other settings are in the folder; the message names each key.
    """
    record: dict[str, Any] = {
        "job": job,
        "schema_version": SCHEMA_VERSION,
        "model_sha256": deciding.get("weights"),
        "config_hash": config_hash(deciding),
        "code_version": code_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "runtimes": [],
        "deciding": dict(deciding),
        "config": _masked(config),
    }
    uri = f"{output.rstrip('/')}/run.json"
    if create_if_absent(uri, _encode(record), conditional):
        return record
    earlier = _same_run(output, uri, job, deciding)
    record["created"] = earlier.get("created", record["created"])
    record["runtimes"] = earlier.get("runtimes", [])
    write_atomic(uri, _encode(record))
    return record


def check_output(output: str, job: str, deciding: Mapping[str, Plain]) -> bool:
    """Whether a folder holds results of a job with these settings; nothing is written.

    Args:
        output, job, deciding: As of `claim_output`.

    Raises:
        RunRefused: Results of other settings are in the folder; the message names each key.
    """
    uri = f"{output.rstrip('/')}/run.json"
    if not exists(uri):
        return False
    _same_run(output, uri, job, deciding)
    return True


def record_runtime(output: str, runtime: str) -> None:
    """Add what a model ran in to ``run.json``. It does not decide results.

    Raises:
        StorageError: The output cannot be reached.
    """
    uri = f"{output.rstrip('/')}/run.json"
    record = json.loads(read_bytes(uri))
    known = record["runtimes"]
    if runtime not in known:
        write_atomic(uri, _encode({**record, "runtimes": [*known, runtime]}))


def _same_run(output: str, uri: str, job: str, deciding: Mapping[str, Plain]) -> dict[str, Any]:
    """The record of a folder, if it is of the same job and settings."""
    try:
        earlier: dict[str, Any] = json.loads(read_bytes(uri))
        before = {"job": earlier["job"], "schema_version": earlier["schema_version"]}
        before |= earlier["deciding"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunRefused(
            f"{uri} exists but is not a record of this project ({type(error).__name__}: {error}); "
            "choose another output folder"
        ) from error
    now: dict[str, Plain] = {"job": job, "schema_version": SCHEMA_VERSION, **deciding}
    if differing := differences(before, now):
        lines = "\n".join(f"  {line}" for line in differing)
        raise RunRefused(
            f"{mask_secrets(output)} holds results made with other settings:\n{lines}\n"
            "Choose another output folder, or go back to those settings."
        )
    return earlier


def _encode(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=2).encode()


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return mask_secrets(value) if isinstance(value, str) else value
