"""Tests share two cores with each other and with Ray: one thread each is faster than a fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
