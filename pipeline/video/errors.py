"""What can go wrong while the frames of a video are read."""

from pipeline.storage.errors import StorageError


class DecodeError(ValueError):
    """No frame of a video could be read; the message says why."""


class NothingThere(DecodeError):
    """No frame lies in the stretch of a video that was asked for; the file is not damaged there."""


class PlaceLost(ValueError):
    """A saved place cannot be found again in a video; the message says why and what to do."""


class FileChanged(StorageError):
    """A file has another size than when its header was read; the message says what to do."""


class DeadlineError(TimeoutError):
    """A video took longer than allowed; the message says how far it was.

    Attributes:
        hangs: whether the decoder's thread is stuck and could not be stopped.
    """

    hangs = False
