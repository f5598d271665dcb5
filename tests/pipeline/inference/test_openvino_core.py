"""A process with several students in OpenVINO outlives its signals."""

import subprocess
import sys

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
