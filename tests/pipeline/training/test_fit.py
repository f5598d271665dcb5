"""A training with its run folder: a killed one goes on as if not, and two workers step as one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from pipeline.training.fit import fit
from pipeline.training.run_folder import STATE
from tests.training_parts import (
    ALONE,
    CLIPS,
    CONFIG,
    clip_task,
    new_trainer,
)


def test_a_killed_run_goes_on_with_the_same_loss_curve(shards, tmp_path):
    whole: list[float] = []
    fit(clip_task(shards, tmp_path / "whole"), *ALONE, lambda p: whole.append(p.loss))
    assert len(whole) == CONFIG.steps

    class KilledError(Exception):
        pass

    part: list[float] = []

    def die_after_three(progress):
        part.append(progress.loss)
        if progress.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        fit(clip_task(shards, tmp_path / "part"), *ALONE, die_after_three)
    assert not (tmp_path / "part" / "finished").exists()
    # The checkpoint is that of step 2; step 3 is done again.
    fit(clip_task(shards, tmp_path / "part"), *ALONE, lambda p: part.append(p.loss))
    np.testing.assert_allclose(part[:2] + part[3:], whole, rtol=1e-5)
    assert part[2] == pytest.approx(part[3], rel=1e-5)
    assert (tmp_path / "part" / "finished").read_text() == "6"
    one, other = (new_trainer(), new_trainer())
    for trainer, name in ((one, "whole"), (other, "part")):
        trainer.resume((tmp_path / name / STATE).read_bytes(), name)
        assert trainer.step == CONFIG.steps
    for name, value in one.average.values.items():
        torch.testing.assert_close(value, other.average.values[name], rtol=1e-4, atol=1e-5)


def test_two_workers_take_the_step_of_one(two_processes, shards, tmp_path):
    config, clips = replace(CONFIG, steps=1, batch=4), replace(CLIPS, length=3)
    (two,) = two_processes(shards, tmp_path / "two", config, clips)
    seen = []
    fit(clip_task(shards, tmp_path / "one", config, clips), *ALONE, seen.append)
    (one,) = seen
    assert two["frames"] == one.frames == 12
    assert two["loss"] == pytest.approx(one.loss, rel=1e-4)
    assert two["terms"] == pytest.approx(one.terms, rel=1e-3, abs=1e-5)
    # After one step the optimizer's mean is a tenth of the gradient; weights would not do, as
    # AdamW takes a full step along a gradient that is nothing but rounding.
    states = [load((tmp_path / name / STATE).read_bytes()) for name in ("one", "two")]
    means = [
        torch.cat([v.flatten() for k, v in sorted(s.items()) if k.endswith("exp_avg")])
        for s in states
    ]
    assert means[0].norm() > 0.01
    assert (means[0] - means[1]).norm() < 1e-3 * means[0].norm()
