"""Tests share two cores with each other and with Ray: one thread each is faster than a fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers a low priority; beside another test on the same cores they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")

import hypothesis
import pytest
import torch

# On a busy machine any example may take long; tests as a whole have their own limit.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with a lively tiny student, for all tests that read one and none that changes it."""
    from model.track.checkpoint import CheckpointMetadata, save_tracker
    from tests.tiny import TINY, tiny_tracker

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_tracker(path, tiny_tracker(lively=True), CheckpointMetadata(model=TINY))
    return path
