"""Errors of file systems and stores: which calls are retried, and how a failure is reported."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

T = TypeVar("T")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_ATTEMPTS = 7
_GIVE_UP_S = 120.0
_WAIT = wait_random_exponential(multiplier=0.5, max=20.0)

# Error codes of stores after which the same call may work a moment later.
_TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "RequestTimeTooSkewed",
        "NoSuchUpload",  # the answer to its completion was lost; it is sent again from the start
    }
)
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
# Compared by name: the classes belong to botocore, aiohttp, google and azure. Some of these
# packages may not be installed.
_TRANSIENT_CLASSES = frozenset(
    {
        "HTTPClientError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ServerTimeoutError",
        "IncompleteRead",
        "ResponseParserError",
        "ResponseStreamingError",
        "ConnectionError",
        "TimeoutError",
        "ServiceRequestError",
        "ServiceResponseError",
        "IncompleteReadError",
    }
)
_TRANSIENT_ERRNO = frozenset(
    {errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EAGAIN, errno.ECONNRESET}
)


class StorageError(RuntimeError):
    """A path cannot be listed, read or written; the message says what to do about it."""


def with_retries(call: Callable[[], T], refresh: Callable[[], object] | None = None) -> T:
    """Return what a call returns, with retries after pauses that grow and have jitter.

    Server errors, throttling, broken connections and expired credentials are retried, up to seven
    times or two minutes. Any other error, and the last failure, is raised unchanged.

    Args:
        call: Safe to repeat.
        refresh: Called before a retry when credentials have expired.
    """

    def before(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if refresh is not None and error is not None and _expired(_codes(error)):
            refresh()

    policy = Retrying(
        stop=stop_after_attempt(_ATTEMPTS) | stop_after_delay(_GIVE_UP_S),
        wait=_WAIT,
        retry=retry_if_exception(is_transient),
        before_sleep=before,
        reraise=True,
    )
    return policy(call)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work a moment later."""
    if isinstance(error, StorageError) or not isinstance(error, Exception):
        return False
    codes = _codes(error)
    if codes & _TRANSIENT_CODES or _expired(codes):
        return True
    if codes:  # the store has answered, so only the code decides
        return any(code in codes for code in ("429", "500", "502", "503", "504"))
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNO or isinstance(error, ConnectionError | TimeoutError)
    return any(kind.__name__ in _TRANSIENT_CLASSES for kind in type(error).__mro__)


def already_exists(error: BaseException) -> bool:
    """Whether the error of a create means that the file exists, in the code of any store."""
    return isinstance(error, FileExistsError) or bool(
        _codes(error) & {"PreconditionFailed", "412", "BlobAlreadyExists"}
    )


@contextmanager
def explained(uri: str, action: str) -> Iterator[None]:
    """Raise errors of a file system as StorageError, with the URI, the reason and a remedy."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # botocore's errors and those of other stores do not derive from OSError.
        reason = str(error) or type(error).__name__
        raise StorageError(f"cannot {action} {uri}: {reason}; {_remedy(error, uri)}") from error


def _codes(error: BaseException) -> set[str]:
    """Error codes and HTTP status that a store answered, from an error and its causes."""
    codes: set[str] = set()
    current: BaseException | None = error
    while current is not None:
        response = getattr(current, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code", "")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        for name in ("code", "status_code", "status", "error_code"):  # google, azure, aiohttp
            value = getattr(current, name, None)
            if isinstance(value, int | str):
                codes.add(str(value))
        current = current.__cause__
    return codes - {""}


def _expired(codes: set[str]) -> bool:
    """Whether credentials have expired. The answer to a HEAD has no body: then it is 400 alone."""
    return bool(codes & _EXPIRED_CODES) or codes == {"400"}


def _remedy(error: Exception, uri: str) -> str:
    remote = _SCHEME.match(uri) is not None and not uri.startswith(("file:", "local:"))
    kind, number = type(error).__name__, getattr(error, "errno", None)
    if _expired(_codes(error)):
        return "the credentials have expired: renew them, then run again"
    if "Credential" in kind or "TokenRetrieval" in kind or "SSOToken" in kind:
        return (
            "give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
            "or a role on the machine"
        )
    if isinstance(error, PermissionError):
        if remote:
            return "check that the credentials in use may list, read and write this bucket"
        return f"check the rights of user {os.getuid()} on it and on the folders above it"
    if isinstance(error, FileNotFoundError):
        if remote:
            return "check the bucket and the prefix, and AWS_ENDPOINT_URL for a private store"
        return "check the spelling, and that the disk is mounted on this machine"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or choose an output on another disk"
    if isinstance(error, NotADirectoryError):
        return "a file stands where a folder should be; choose another path"
    if number == errno.EROFS:
        return "the disk is read-only; choose an output on another disk"
    if is_transient(error):
        return "it was tried several times; check that the store is up, then run again"
    return "check that it can be reached from this machine"


def describe_error(error: BaseException) -> str:
    """Type, message and the last three stack frames of an exception, on one line."""
    last = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in last]
    return f"{type(error).__name__}: {error} (at {' > '.join(places)})"
