"""The version of this project's code; pyproject.toml reads it here."""

VERSION = "0.1.0"


def code_version() -> str:
    """The version of the code that makes a result, known without an installed package."""
    return VERSION
