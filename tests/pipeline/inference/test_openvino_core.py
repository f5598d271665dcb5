"""OpenVINO leaves the signals of a process as they were."""

import subprocess
import sys

import pytest

_TWO_STUDENTS = """
import gc, os, signal, sys
from model.track.checkpoint import file_sha256
from model.track.tracker import Tracker
from pipeline.inference.runtime import open_model

def student():
    tracker, _ = Tracker.load(sys.argv[1])
    return open_model("openvino", "cpu", tracker.config, file_sha256(sys.argv[1]), lambda: tracker)

seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
first, second = student(), student()
# In the order of their start: then a plugin of the second would put back the stack of the first.
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
print(len(seen))
"""


def test_a_signal_after_the_end_of_two_students_is_handled(weights):
    ran = subprocess.run(
        [sys.executable, "-c", _TWO_STUDENTS, str(weights)], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "1"), ran.stderr


_SIGNAL_STACK = """
import ctypes, sys
from model.track.checkpoint import file_sha256
from model.track.tracker import Tracker
from pipeline.inference.runtime import open_model

class Stack(ctypes.Structure):  # stack_t of Linux
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def stack():
    now = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)) == 0
    return now.at, now.size

room = ctypes.create_string_buffer(1 << 16)
own = Stack(ctypes.addressof(room), 0, len(room))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(own), None) == 0
tracker, _ = Tracker.load(sys.argv[1])
open_model("openvino", "cpu", tracker.config, file_sha256(sys.argv[1]), lambda: tracker)
assert "openvino" in sys.modules
assert stack() == (ctypes.addressof(room), len(room)), stack()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C type of signal stacks is that of Linux")
def test_the_signal_stack_of_a_thread_stays(weights):
    """Ray's handler for crashes needs 64 KiB, and with less it never ends."""
    ran = subprocess.run(
        [sys.executable, "-c", _SIGNAL_STACK, str(weights)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
