"""Passwords, tokens and keys are masked in whatever is printed, stored or logged."""

from __future__ import annotations

import os
import re
from functools import cache

_SHORTEST_SECRET = 8  # characters; a shorter value may be part of a word
# AWS, GitHub, Hugging Face, Slack.
_KEY_FORMS = r"\b(?:A[KS]IA[A-Z0-9]{16}|gh[pousr]_\w{16,}|hf_\w{16,}|xox[abprs]-[\w-]{10,})\b"
_SECRET_PARAMETER = "password|passwd|secret|token|signature|credential|access_?key|sig"


def mask_secrets(text: str) -> str:
    """Text with secrets replaced by ``***``.

    Secrets are passwords in ``scheme://user:password@host``, parameters such as ``?token=…``,
    bearer tokens, keys of a known form, and the values of this process's secret environment
    variables. A password may contain ``/``; ``host:port/path@…`` is not taken for one.
    """
    password = r"(?:[^/\s]+|(?!\d{1,5}/)[^\s@]+)"
    text = re.sub(rf"(?<=://)([^/\s:@]*):{password}@", r"\1:***@", text)
    name = rf"(?:^|[?&;\s])[\w.-]*(?:{_SECRET_PARAMETER})[\w.-]*="
    text = re.sub(rf"(?i)({name})[^&;\s]+", r"\1***", text)
    text = re.sub(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}", r"\1***", text)
    text = re.sub(_KEY_FORMS, "***", text)
    for value in secret_values():
        text = text.replace(value, "***")
    return text


@cache
def secret_values() -> tuple[str, ...]:
    """Values of environment variables whose names are those of secrets, longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if re.search("SECRET|TOKEN|PASSWORD|PASSWD|ACCESS_KEY|API_KEY", name.upper())
        and len(value) >= _SHORTEST_SECRET
        and not value.startswith("/")  # the path of a file that holds the secret
    }
    return tuple(sorted(found, key=len, reverse=True))
