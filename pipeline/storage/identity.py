"""The id of a video: a function of its path below the archive's root and of its content."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

_SLUG = 40  # characters of a file's name kept in its video_id


def video_id(relative_path: str, identity: str) -> str:
    """Return the stable id of a video, `slug-hash`, which is a valid file name on all systems."""
    stem = unicodedata.normalize("NFKD", PurePosixPath(relative_path).stem)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", stem.encode("ascii", "ignore").decode())[:_SLUG]
    digest = hashlib.sha256(f"{relative_path}\0{identity}".encode("utf-8", "surrogateescape"))
    return f"{slug.strip('-') or 'video'}-{digest.hexdigest()[:12]}"
