"""A start imports no slow library that it does not need."""

import subprocess
import sys

import pytest

SLOW = ("torch", "ray", "mlflow", "pandas", "openvino", "av")


def imported(code, names):
    """Which of the modules are there after the code has run in a new process."""
    script = f"import sys\n{code}\nprint('|', *[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("|")[2].split()


@pytest.mark.parametrize("words", [["--help"], ["track", "--help"], ["train", "--help"]])
def test_help_needs_no_slow_library(words):
    code = f"from jobs.__main__ import main\ntry:\n    main({words!r})\nexcept SystemExit: pass"
    assert imported(code, SLOW) == []


def test_tracking_with_kept_graphs_needs_no_library_of_models():
    """They take longer to import than all else, and only a conversion needs them."""
    code = (
        "import pipeline.tracking.run, pipeline.tracking.worker, pipeline.inference.openvino_model"
    )
    names = ("timm", "torchvision", "torch._dynamo", "ray", "mlflow", "pandas")
    assert imported(code, names) == []
