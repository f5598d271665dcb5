"""Input and output: listed, read, written and removed by real requests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.archive.inputs import find_files
from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.secrets import mask_secrets

_GB = 10**9
_LITTLE = 1 * _GB  # free space of a disk below which a run soon fills it
_CONNECT_S = 5.0
_LISTED = 100
_WORDS = b"vsdmot doctor wrote this to see whether it may; remove it if you find it\n"


def check_input(config: DoctorConfig) -> Iterable[Finding]:
    """List the archive, and read the first bytes of a video."""
    if not config.input:
        return
    name = "input"
    yield from endpoint(config.input.removeprefix("@"), name)
    try:
        found = list(islice(find_files(config.input, config.output), _LISTED))
        files = [file for file in found if isinstance(file, ArchiveFile)]
        missing = [file for file in found if not isinstance(file, ArchiveFile)]
        if not files:
            yield problem(
                name,
                f"none of the first {len(found)} files can be read: {missing[0].relative_path}: "
                f"{missing[0].reason}",
                "correct the list or the rights",
            )
            return
        with storage.open_binary(files[0].uri) as source:
            source.read(1)
    except StorageError as error:
        yield _unusable(name, error)
        return
    more = " or more" if len(found) == _LISTED else ""
    text = f"{len(files)}{more} videos listed, one of them read"
    if missing:
        yield warning(
            name,
            f"{text}; {len(missing)} cannot be: {missing[0].relative_path}: {missing[0].reason}",
            "correct the list or the rights; vsdmot plan names more",
        )
    else:
        yield ok(name, text)


def check_output(config: DoctorConfig) -> Iterable[Finding]:
    """Write a small file, and remove it; look at the space of a local disk."""
    if not config.output:
        return
    name, output = "output", config.output.rstrip("/")
    yield from endpoint(output, name)
    remote = "://" in output
    folder = output if remote else str(existing(Path(output)))
    uri = f"{folder}/vsdmot-doctor-{secrets.token_hex(8)}.txt"
    try:
        storage.write_atomic(uri, _WORDS)
        if storage.read_bytes(uri) != _WORDS:
            yield problem(name, f"{uri} reads otherwise than it was written", "check the store")
            return
    except StorageError as error:
        yield _unusable(name, error)
        return
    finally:
        left = _removed(uri)
    if left is not None:
        yield warning(
            name,
            f"a file can be written but not removed: {left}",
            "grant the right to delete: finished parts and settled dead letters are removed",
        )
    elif not storage.creates_once(folder):
        yield warning(
            name,
            f"{folder} can be written, without conditional writes",
            "start only one run on it at a time",
        )
    else:
        yield ok(name, f"a file was written to {folder}, read and removed")
    if not remote:
        yield space("output disk", Path(folder), "choose an output on another disk")


def endpoint(uri: str, name: str) -> Iterator[Finding]:
    """Whether the address that S3 is asked at takes connections; a refusal is told at once."""
    if not uri.startswith(("s3://", "s3a://")):
        return
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    remedy = "check that the store is up and AWS_ENDPOINT_URL is right"
    reach(parts.hostname or "", port, remedy)
    yield ok(f"{name} store", f"{url} takes connections")


class Unreachable(Exception):
    """A server does not take connections; the arguments are what was found, and what to do."""


def reach(host: str, port: int, remedy: str) -> None:
    """Connect to a server, because the libraries that use it would try for minutes.

    Raises:
        Unreachable: It does not take connections.
    """
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        raise Unreachable(f"nothing answers at {host}:{port}: {error}", remedy) from error


def existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def space(name: str, folder: Path, remedy: str) -> Finding:
    """Whether the disk of a folder has room."""
    free = shutil.disk_usage(folder).free
    text = f"{free / _GB:,.1f} GB free at {folder}"
    if free < _LITTLE:
        return warning(name, text, f"vsdmot plan says how much a run takes; {remedy}")
    return ok(name, text)


def _removed(uri: str) -> str | None:
    """Remove a file; why it cannot be removed, None if it is gone."""
    try:
        storage.remove(uri)
    except StorageError as error:
        return str(error)
    return None


def _unusable(name: str, error: StorageError) -> Finding:
    """A problem from an error whose message ends in what to do."""
    found, _, remedy = mask_secrets(str(error)).partition("; ")
    return problem(name, found, remedy)
