"""Messages from a worker to the driver: none is lost and none is read twice."""

from pipeline.training.progress_actor import ProgressMailbox


def test_messages_are_kept_until_they_have_arrived():
    mailbox = ProgressMailbox()
    mailbox.put(b"1")
    name, before, messages = mailbox.take("", 0)
    assert (before, messages) == (0, [b"1"])
    mailbox.put(b"2")
    # The answer was lost: the driver asks as it did before.
    assert mailbox.take("", 0)[1:] == (0, [b"1", b"2"])
    assert mailbox.take(name, 1)[1:] == (1, [b"2"])
    assert mailbox.take(name, 2)[1:] == (2, [])
    # One that was started anew has forgotten how far the driver was.
    again = ProgressMailbox()
    again.put(b"3")
    assert again.take(name, 2)[1:] == (0, [b"3"])
