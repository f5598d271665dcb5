"""What the workers of a training tell its driver. An actor, so it imports nothing that is slow."""


class Post:
    """Keeps letters, as bytes, until the driver asks for them."""

    def __init__(self) -> None:
        self._letters: list[bytes] = []
        self._failure = ""

    def put(self, letter: bytes) -> None:
        """Leave a letter."""
        self._letters.append(letter)

    def take(self) -> list[bytes]:
        """Hand out what is there, in order."""
        letters, self._letters = self._letters, []
        return letters

    def fail(self, message: str) -> None:
        """Say that trying again is of no use; the first to say so is heard."""
        self._failure = self._failure or message

    def failure(self) -> str:
        """What was said, or nothing."""
        return self._failure
