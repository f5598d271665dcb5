"""Messages from a worker to the driver: none is lost and none is read twice."""

from pipeline.training.progress_queue import ProgressQueue


def test_messages_are_kept_until_they_have_arrived():
    queue = ProgressQueue()
    queue.put(b"1")
    name, before, messages = queue.take("", 0)
    assert (before, messages) == (0, [b"1"])
    queue.put(b"2")
    # The answer was lost: the driver asks as it did before.
    assert queue.take("", 0)[1:] == (0, [b"1", b"2"])
    assert queue.take(name, 1)[1:] == (1, [b"2"])
    assert queue.take(name, 2)[1:] == (2, [])
    # One that was started anew has forgotten how far the driver was.
    again = ProgressQueue()
    again.put(b"3")
    assert again.take(name, 2)[1:] == (0, [b"3"])
