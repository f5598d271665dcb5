"""Messages of the workers of a training for its driver.

The queue is a Ray actor. It imports nothing that takes long to import.
"""

import uuid


class ProgressQueue:
    """Keeps messages, as bytes, until the driver confirms that it has received them.

    Ray may lose a reply on a busy machine, so a message that was sent is kept until then.
    """

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._name = uuid.uuid4().hex  # new after a restart, which loses the counts
        self._removed = 0
        self._failure = ""

    def put(self, message: bytes) -> None:
        """Add a message."""
        self._messages.append(message)

    def take(self, name: str, received: int) -> tuple[str, int, list[bytes]]:
        """Return all messages in order, and remove those that the driver has received.

        Args:
            name: name of the queue in the last reply; "" at first.
            received: number of messages received from the queue of this name.

        Returns:
            the name of this queue, the number of messages before these, and these.
        """
        if name == self._name:
            del self._messages[: received - self._removed]
            self._removed = received
        return self._name, self._removed, list(self._messages)

    def fail(self, message: str) -> None:
        """Store an error that ends the training without a further attempt; the first one stays."""
        self._failure = self._failure or message

    def failure(self) -> str:
        """Return the stored error, "" if there is none."""
        return self._failure
