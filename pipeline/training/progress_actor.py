"""Where the workers of a training leave progress messages for its driver.

An actor, so it imports nothing that is slow.
"""

import uuid


class ProgressMailbox:
    """Keeps messages, as bytes, until the driver says that it has them.

    An answer may be lost on a busy machine, so what was handed out is kept until then.
    """

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._name = uuid.uuid4().hex  # a restarted one counts anew
        self._gone = 0
        self._failure = ""

    def put(self, message: bytes) -> None:
        """Leave a message."""
        self._messages.append(message)

    def take(self, name: str, seen: int) -> tuple[str, int, list[bytes]]:
        """Hand out in order what is there, and forget what the driver has.

        Args:
            name: of the mailbox the driver last heard of, "" at first.
            seen: messages it has had from that one.

        Returns:
            this mailbox's name, how many messages came before these, and these.
        """
        if name == self._name:
            del self._messages[: seen - self._gone]
            self._gone = seen
        return self._name, self._gone, list(self._messages)

    def fail(self, message: str) -> None:
        """Say that trying again is of no use; the first to say so is heard."""
        self._failure = self._failure or message

    def failure(self) -> str:
        """What was said, or nothing."""
        return self._failure
