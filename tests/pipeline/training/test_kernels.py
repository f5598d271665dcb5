"""The setting `worker.kernels`: who computes the convolutions of a training."""

import shutil

import pytest
import torch

from model.learn.clip_loss import ClipObjective
from model.learn.cpu_kernels.compiled import KernelError
from model.learn.cpu_kernels.convolutions import DepthwiseConvolution
from model.learn.training import Trainer
from pipeline.training.student import choose_kernels
from tests.tiny import tiny_tracker
from tests.training_parts import CONFIG, clip_batches, new_trainer


def test_native_kernels_are_refused_on_a_gpu_and_others_are_not():
    with pytest.raises(KernelError, match=r"training is on cuda; give worker.kernels=torch"):
        choose_kernels(tiny_tracker(), "native", torch.device("cuda"))
    tracker = tiny_tracker()
    choose_kernels(tracker, "torch", torch.device("cuda"))
    assert not any(isinstance(m, DepthwiseConvolution) for m in tracker.modules())


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_training_goes_on_with_other_kernels(shards):
    tracker = tiny_tracker()
    choose_kernels(tracker, "native", torch.device("cpu"))
    native, plain = Trainer(tracker, ClipObjective(), CONFIG, "cpu"), new_trainer()
    first, second = (batch for batch, _ in zip(clip_batches(shards), range(2), strict=False))
    losses = [next(iter(t.run([first]))).loss for t in (native, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    state, averaged = native.save(), native.averaged().state_dict()
    plain.resume(state, "state")
    assert plain.save() == state
    assert all(torch.equal(v, averaged[n]) for n, v in plain.averaged().state_dict().items())
    assert next(iter(plain.run([second]))).step == 2
