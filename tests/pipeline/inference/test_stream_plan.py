"""How many videos a GPU takes at once, and what is said where it takes none."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.inference import stream_plan
from pipeline.inference.precision import usable_precision
from pipeline.inference.stream_plan import GpuMemoryError, measured_plan, measured_rate, planned
from tests.tiny import tiny_tracker

CANVAS = (64, 96)


def plan_of(monkeypatch, rates):
    """The plan where a batch of n windows is measured at rates[n]; a missing one does not fit."""

    def rate(model, canvas, window, seconds):
        if model.rows not in rates:
            raise torch.OutOfMemoryError
        return rates[model.rows]

    monkeypatch.setattr(stream_plan, "measured_rate", rate)
    return measured_plan(tiny_tracker, CANVAS, 4, "fp32", 0.5)


@pytest.mark.parametrize(
    ("rates", "rows"),
    [
        ({1: 100, 2: 190, 4: 300, 8: 310, 16: 900}, 4),  # eight are hardly faster
        ({1: 100, 2: 190, 4: 300}, 4),  # eight do not fit
        ({1: 100, 2: 90}, 1),
    ],
)
def test_the_last_batch_that_was_worth_it_is_taken(monkeypatch, rates, rows):
    plan = plan_of(monkeypatch, rates)
    assert (plan.rows, plan.streams, plan.frames, plan.gpu_share) == (rows, 2 * rows, 4 * rows, 0.5)
    assert f"{rows} windows of 4 frames: {rates[rows]} frames/s" in plan.reason


def test_a_gpu_without_memory_for_one_video_is_told_need_and_have(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50 * 2**20, 2048 * 2**20))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tiny GPU")
    with pytest.raises(GpuMemoryError, match=r"Tiny GPU has too little memory for one video: "
                       r"about 5\d\d MiB are needed .* and 50 of 2048 MiB are free"):  # fmt: skip
        plan_of(monkeypatch, {})


def test_half_of_the_videos_make_a_batch():
    assert [planned(n, 8, 1.0, "").rows for n in (1, 2, 3, 8)] == [1, 1, 2, 4]
    assert planned(3, 8, 1.0, "").frames == 16


def test_a_rate_is_measured():
    model = stream_plan.BatchedModel(tiny_tracker(), 2, 4, "fp32")
    assert measured_rate(model, CANVAS, 2, 0.01) > 0


def test_a_card_too_old_for_bf16_computes_in_fp32(monkeypatch):
    old = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    for there, wanted in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there
        )
        found, said = usable_precision("bf16", old)
        assert found == wanted and (said == "") == there
        assert there or said == "Old GPU is too old for bf16, so it computes in fp32"
    assert usable_precision("fp32", old) == ("fp32", "")
