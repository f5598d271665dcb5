"""What the workers of a training tell its driver. An actor, so it imports nothing that is slow."""

import uuid


class Post:
    """Keeps letters, as bytes, until the driver says that it has them.

    An answer may be lost on a busy machine, so what was handed out is kept until then.
    """

    def __init__(self) -> None:
        self._letters: list[bytes] = []
        self._name = uuid.uuid4().hex  # a restarted one counts anew
        self._gone = 0
        self._failure = ""

    def put(self, letter: bytes) -> None:
        """Leave a letter."""
        self._letters.append(letter)

    def take(self, name: str, seen: int) -> tuple[str, int, list[bytes]]:
        """Hand out in order what is there, and forget what the driver has.

        Args:
            name: of the post the driver last heard of, "" at first.
            seen: letters it has had from that one.

        Returns:
            this post's name, how many letters came before these, and these.
        """
        if name == self._name:
            del self._letters[: seen - self._gone]
            self._gone = seen
        return self._name, self._gone, list(self._letters)

    def fail(self, message: str) -> None:
        """Say that trying again is of no use; the first to say so is heard."""
        self._failure = self._failure or message

    def failure(self) -> str:
        """What was said, or nothing."""
        return self._failure
