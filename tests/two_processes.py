"""A training in two processes without Ray; each is a child of the warm process."""

import json
import pickle
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import distributed as dist

from model.communicator import Communicator
from model.learn.clip_loss import ClipObjective
from pipeline.training.batches import batches
from pipeline.training.worker import train_on_worker
from tests.training_parts import CLIPS, CONFIG, clip_task

WORLD = 2


def train_in_two(warm, shards, folder, config=CONFIG, clips=CLIPS, objective=ClipObjective):
    """Train until the end; what was told of each step, as dicts."""
    Path(folder).mkdir()
    given = Path(folder, "given")
    given.write_bytes(pickle.dumps((config, clips, objective)))
    words = [[str(rank), str(shards), str(folder)] for rank in range(WORLD)]
    both = [warm.start("tests.two_processes", argv) for argv in words]
    # One that has failed leaves the other waiting for it.
    while None in [process.poll() for process in both] and not any(p.returncode for p in both):
        time.sleep(0.02)
    assert [process.returncode for process in both] == [0] * WORLD, [p.said() for p in both]
    return json.loads(Path(folder, "told").read_text())


def main(argv):
    """Train as one of the two: its rank, the folder of the shards and that of the run."""
    rank, shards, folder = int(argv[0]), argv[1], argv[2]
    config, clips, objective = pickle.loads(Path(folder, "given").read_bytes())
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=WORLD)
    what, told = clip_task(shards, folder, config, clips, objective), []

    def batches_from(first):
        return batches(what.stream(), what.sizes, first, config.steps, 0, rank, WORLD)

    train_on_worker(what, torch.device("cpu"), Communicator(), batches_from, told.append)
    if rank == 0:
        Path(folder, "told").write_text(json.dumps([asdict(p) for p in told]))
    dist.destroy_process_group()
    return 0
