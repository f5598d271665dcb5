"""Tests share two cores with each other and with Ray: one thread each is faster than a fight."""

import functools
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers a low priority; beside another test on the same cores they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")

# Graphs for OpenVINO are kept from one run of the tests to the next.
os.environ.setdefault("XDG_CACHE_HOME", str(Path(__file__).parents[1] / ".pytest_cache" / "user"))

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


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Shards of a tiny training set, for all tests that read them and none that changes them."""
    from tests.training_parts import write_shards

    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """Runs commands in children of one process that has imported torch and the jobs."""
    from tests.warm import WarmServer

    server = WarmServer(tmp_path_factory.mktemp("warm"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def two_processes(warm):
    """Trains in two processes without Ray."""
    from tests.two_processes import train_in_two

    return functools.partial(train_in_two, warm)
