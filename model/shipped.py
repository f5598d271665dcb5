"""Configs and weights that come with the code, in a checkout and in an installed package alike."""

from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[1]
_PACKAGE = "vsdmot_data"


def shipped(name: str) -> Path:
    """Return where a file lies that comes with the code; it may be missing.

    A checkout keeps it in the repository. A wheel keeps it in the package `vsdmot_data`, beside
    this one; a checkout has no such folder.

    Args:
        name: path below the repository, such as `configs/eval.yaml`.
    """
    packaged = _BESIDE / _PACKAGE
    return (packaged if packaged.is_dir() else _BESIDE) / name


def here_or_shipped(name: str) -> str:
    """Return a path as it is given, or where the code brings such a file if there is none here.

    Args:
        name: a path, relative to the working directory or absolute, or a URL.
    """
    found = shipped(name)
    return str(found) if found.is_file() and not Path(name).is_file() else name
